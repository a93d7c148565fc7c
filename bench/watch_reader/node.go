// The watches of a node: frames, and the ITEMs in them (spec/protocol.md, sections 2, 3 and 7).
package main

import (
	"bufio"
	"encoding/binary"
	"hash/crc32"
	"io"
	"log"
	"net"
)

const (
	headerSize = 28
	overhead   = 64 // what an ITEM costs its windows beside its metadata and its payload

	typeWelcome  = 0x02
	typeItem     = 0x11
	typeError    = 0x13
	typeCredit   = 0x15
	typePing     = 0x20
	typePong     = 0x21
	flagMore     = 0x01
	streamWindow = 256 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func frame(kind byte, stream uint64, payload []byte) []byte {
	made := make([]byte, headerSize, headerSize+len(payload))
	binary.BigEndian.PutUint16(made, 0xFA57)
	made[2], made[3] = 1, kind
	binary.BigEndian.PutUint64(made[8:], stream)
	binary.BigEndian.PutUint32(made[16:], uint32(len(payload)))
	binary.BigEndian.PutUint32(made[20:], crc32.Checksum(payload, castagnoli))
	binary.BigEndian.PutUint32(made[24:], crc32.Checksum(made[:24], castagnoli))
	return append(made, payload...)
}

func credit(stream uint64, size int) []byte {
	return frame(typeCredit, stream, binary.BigEndian.AppendUint32(nil, uint32(size)))
}

// The n-th watch has the stream 2n + 1.
func readNode(address string, task Connection, readings *Readings) {
	socket, err := net.Dial("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	reader := bufio.NewReaderSize(socket, 256<<10)
	write := func(data []byte) {
		if _, err := socket.Write(data); err != nil {
			log.Fatal(err)
		}
	}
	write(task.Hello)
	header := make([]byte, headerSize)
	body := make([]byte, 0, 64<<10)
	parts := map[int][]byte{}
	owed, owedOf := 0, make([]int, task.Watches)
	begun := make([]bool, task.Watches)
	for {
		if _, err := io.ReadFull(reader, header); err != nil {
			log.Fatal("the node has ended the connection: ", err)
		}
		metadata, payload := int(binary.BigEndian.Uint16(header[6:])), int(binary.BigEndian.Uint32(header[16:]))
		stream := binary.BigEndian.Uint64(header[8:])
		if cap(body) < metadata+payload {
			body = make([]byte, 0, metadata+payload)
		}
		body = body[:metadata+payload]
		if _, err := io.ReadFull(reader, body); err != nil {
			log.Fatal(err)
		}
		item := body[metadata:]
		switch header[3] {
		case typeWelcome:
			go write(task.Requests)
		case typePing:
			write(frame(typePong, 0, item))
		case typeError:
			log.Fatalf("an error on stream %d: %q", stream, item)
		case typeItem:
			watch := int(stream / 2)
			cost := overhead + metadata + payload
			owed += cost
			owedOf[watch] += cost
			if owedOf[watch] >= streamWindow/2 {
				write(credit(stream, owedOf[watch]))
				owedOf[watch] = 0
			}
			if owed >= task.Window/2 {
				write(credit(0, owed))
				owed = 0
			}
			if header[5]&flagMore != 0 || parts[watch] != nil {
				parts[watch] = append(parts[watch], item...)
				if header[5]&flagMore != 0 {
					continue
				}
				item = parts[watch]
				delete(parts, watch)
			}
			if !begun[watch] {
				begun[watch] = true
				readings.begun.Done()
			}
			countItem(watch, item, readings)
		}
	}
}

// An ITEM is [revision, [[kind, key, value, version, previous, expires_at_ms], …], more].
func countItem(watch int, item []byte, readings *Readings) {
	revision, rest := number(item[1:])
	events, rest := length(rest)
	if events == 0 {
		readings.last[watch] = int64(revision)
		return
	}
	looked := readings.Count(watch, events, int64(revision))
	for i := 0; i <= looked; i++ {
		_, rest = length(rest)
		_, rest = number(rest)
		size := 0
		size, rest = length(rest)
		rest = rest[size:]
		size, rest = length(rest)
		value := rest[:size]
		_, rest = number(rest[size:])
		rest = rest[2:] // no entry of before, no time to live
		if i == looked {
			readings.Late(value)
		}
	}
}

// An unsigned integer of MessagePack, and the bytes behind it.
func number(data []byte) (uint64, []byte) {
	switch data[0] {
	case 0xcc:
		return uint64(data[1]), data[2:]
	case 0xcd:
		return uint64(binary.BigEndian.Uint16(data[1:])), data[3:]
	case 0xce:
		return uint64(binary.BigEndian.Uint32(data[1:])), data[5:]
	case 0xcf:
		return binary.BigEndian.Uint64(data[1:]), data[9:]
	}
	return uint64(data[0]), data[1:]
}

// The length of an array, a text or bytes, and what is behind it; nil has none.
func length(data []byte) (int, []byte) {
	switch first := data[0]; {
	case first == 0xc0:
		return 0, data[1:]
	case first&0xf0 == 0x90:
		return int(first & 0x0f), data[1:]
	case first&0xe0 == 0xa0:
		return int(first & 0x1f), data[1:]
	case first == 0xc4 || first == 0xd9:
		return int(data[1]), data[2:]
	case first == 0xc5 || first == 0xda || first == 0xdc:
		return int(binary.BigEndian.Uint16(data[1:])), data[3:]
	case first == 0xc6 || first == 0xdb || first == 0xdd:
		return int(binary.BigEndian.Uint32(data[1:])), data[5:]
	}
	log.Fatalf("no length begins with %#x", data[0])
	return 0, nil
}
