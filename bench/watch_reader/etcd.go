// The watches of an etcd: the messages of one gRPC stream, over HTTP/2 without TLS.
package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"log"
	"net/http"
)

// Fields of etcd's messages (rpc.proto, kv.proto).
const (
	responseWatch    = 2
	responseCreated  = 3
	responseCanceled = 4
	responseEvents   = 11
	eventEntry       = 2
	entryRevision    = 3
	entryValue       = 5
)

// The watches of a connection have the ids from 1 on, which its requests name.
func readEtcd(address string, task Connection, readings *Readings) {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	body, requests := io.Pipe()
	request, err := http.NewRequest("POST", "http://"+address+"/etcdserverpb.Watch/Watch", body)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("TE", "trailers")
	go requests.Write(task.Requests)
	response, err := transport.RoundTrip(request)
	if err != nil {
		log.Fatal(err)
	}
	reader := bufio.NewReaderSize(response.Body, 256<<10)
	head := make([]byte, 5)
	message := make([]byte, 0, 64<<10)
	for {
		if _, err := io.ReadFull(reader, head); err != nil {
			log.Fatal("etcd has ended the stream: ", err, response.Trailer)
		}
		size := int(binary.BigEndian.Uint32(head[1:]))
		if cap(message) < size {
			message = make([]byte, 0, size)
		}
		message = message[:size]
		if _, err := io.ReadFull(reader, message); err != nil {
			log.Fatal(err)
		}
		countResponse(message, readings)
	}
}

func countResponse(message []byte, readings *Readings) {
	watch, events := 0, 0
	var last []byte
	each(message, func(field int, value uint64, data []byte) {
		switch field {
		case responseWatch:
			watch = int(value) - 1
		case responseCreated:
			readings.begun.Done()
		case responseCanceled:
			log.Fatal("etcd has cancelled a watch")
		case responseEvents:
			events++
			last = data
		}
	})
	if events == 0 {
		return
	}
	revision := int64(0)
	entry(last, func(field int, value uint64, _ []byte) {
		if field == entryRevision {
			revision = int64(value)
		}
	})
	looked := readings.Count(watch, events, revision)
	if looked < 0 {
		return
	}
	each(message, func(field int, _ uint64, data []byte) {
		if field != responseEvents {
			return
		}
		if looked == 0 {
			entry(data, func(field int, _ uint64, data []byte) {
				if field == entryValue {
					readings.Late(data)
				}
			})
		}
		looked--
	})
}

func entry(event []byte, call func(int, uint64, []byte)) {
	each(event, func(field int, _ uint64, data []byte) {
		if field == eventEntry {
			each(data, call)
		}
	})
}

// Calls back with each field of a message: its number, or its bytes.
func each(message []byte, call func(field int, value uint64, data []byte)) {
	for len(message) > 0 {
		key, size := binary.Uvarint(message)
		message = message[size:]
		value, size := binary.Uvarint(message)
		message = message[size:]
		if key&7 != 2 {
			call(int(key>>3), value, nil)
			continue
		}
		call(int(key>>3), value, message[:value])
		message = message[value:]
	}
}
