// A client of CAFE, written from spec/cafe.md alone. It runs every operation against a node, and many at once.
//
// usage: cafe HOST:PORT KEY_FILE plain|bind|encrypt
package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

const (
	opGet, opSet, opDel, opBind   = 1, 2, 3, 4
	opOK, opErr, opNotFound       = 128, 129, 130
	flagEncrypted                 = 2
	headSize, headerSize, tagSize = 16, 48, 32
	valueLenMax                   = 8454144
)

// answer is the content of one answer; err is that of the connection.
type answer struct {
	opcode byte
	value  []byte
	err    error
}

// client is one connection.
type client struct {
	conn    net.Conn
	key     []byte
	aead    cipher.AEAD
	encrypt bool

	mutex   sync.Mutex
	lastID  uint32
	waiting map[uint32]chan answer
	failed  error
}

func hkdf(secret, salt, info []byte) []byte {
	if len(salt) == 0 {
		salt = make([]byte, sha256.Size)
	}
	extract := hmac.New(sha256.New, salt)
	extract.Write(secret)
	expand := hmac.New(sha256.New, extract.Sum(nil))
	expand.Write(info)
	expand.Write([]byte{1})
	return expand.Sum(nil)
}

func (c *client) useKey(key []byte) error {
	block, err := aes.NewCipher(hkdf(key, nil, []byte("cafe/1 encryption")))
	if err != nil {
		return err
	}
	c.key = key
	c.aead, err = cipher.NewGCM(block)
	return err
}

func (c *client) tag(head, body []byte) []byte {
	mac := hmac.New(sha256.New, c.key)
	mac.Write(head)
	mac.Write(body)
	return mac.Sum(nil)
}

// message makes the bytes of a request.
func (c *client) message(opcode byte, id uint32, key, value []byte) ([]byte, error) {
	head := make([]byte, headSize)
	binary.BigEndian.PutUint16(head[0:], 0xCAFE)
	head[2], head[3] = 1, opcode
	binary.BigEndian.PutUint32(head[4:], id)
	var body []byte
	if c.encrypt && opcode != opBind {
		head[8] = flagEncrypted
		plain := binary.BigEndian.AppendUint16(nil, uint16(len(key)))
		plain = append(append(plain, key...), value...)
		nonce := make([]byte, c.aead.NonceSize())
		if _, err := rand.Read(nonce); err != nil {
			return nil, err
		}
		binary.BigEndian.PutUint32(head[12:], uint32(len(nonce)+len(plain)+c.aead.Overhead()))
		body = c.aead.Seal(nonce, nonce, plain, head)
	} else {
		binary.BigEndian.PutUint16(head[10:], uint16(len(key)))
		binary.BigEndian.PutUint32(head[12:], uint32(len(value)))
		body = append(append([]byte{}, key...), value...)
	}
	return append(append(head, c.tag(head, body)...), body...), nil
}

// read returns the next answer and its request_id, checked as section 6 says.
func (c *client) read() (uint32, answer, error) {
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(c.conn, header); err != nil {
		return 0, answer{}, err
	}
	valueLen := binary.BigEndian.Uint32(header[12:])
	if binary.BigEndian.Uint16(header) != 0xCAFE || header[2] != 1 || valueLen > valueLenMax {
		return 0, answer{}, errors.New("the header is wrong")
	}
	if header[3] < opOK || header[8]&^3 != 0 || header[9] != 0 || binary.BigEndian.Uint16(header[10:]) != 0 {
		return 0, answer{}, errors.New("this is no answer")
	}
	body := make([]byte, valueLen)
	if _, err := io.ReadFull(c.conn, body); err != nil {
		return 0, answer{}, err
	}
	if !hmac.Equal(c.tag(header[:headSize], body), header[headSize:headerSize]) {
		return 0, answer{}, errors.New("the tag is wrong")
	}
	if header[8]&flagEncrypted != 0 {
		size := c.aead.NonceSize()
		if len(body) < size {
			return 0, answer{}, errors.New("the encrypted value is too short")
		}
		plain, err := c.aead.Open(nil, body[:size], body[size:], header[:headSize])
		if err != nil || len(plain) < 2 || plain[0] != 0 || plain[1] != 0 {
			return 0, answer{}, errors.New("the encrypted value does not open")
		}
		body = plain[2:]
	}
	return binary.BigEndian.Uint32(header[4:]), answer{opcode: header[3], value: body}, nil
}

// readAll gives each answer to its request, until the connection ends.
func (c *client) readAll() {
	for {
		id, got, err := c.read()
		c.mutex.Lock()
		channel, found := c.waiting[id]
		if err == nil && !found {
			err = fmt.Errorf("an answer for request %d, which waits for none: %v", id, got)
		}
		if err != nil {
			c.failed = err
			for _, each := range c.waiting {
				each <- answer{err: err}
			}
			c.waiting = nil
			c.mutex.Unlock()
			return
		}
		delete(c.waiting, id)
		c.mutex.Unlock()
		channel <- got
	}
}

// call sends a request and waits for its answer.
func (c *client) call(opcode byte, key, value string) (answer, error) {
	channel := make(chan answer, 1)
	c.mutex.Lock()
	if c.failed != nil {
		c.mutex.Unlock()
		return answer{}, c.failed
	}
	c.lastID++
	data, err := c.message(opcode, c.lastID, []byte(key), []byte(value))
	if err == nil {
		c.waiting[c.lastID] = channel
		_, err = c.conn.Write(data) // under the lock, so that the ids rise on the wire
	}
	c.mutex.Unlock()
	if err != nil {
		return answer{}, err
	}
	got := <-channel
	return got, got.err
}

// bind gives the connection a key of its own.
func (c *client) bind() error {
	nonce := make([]byte, 16)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	c.lastID++
	data, err := c.message(opBind, c.lastID, nil, nonce)
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(data); err != nil {
		return err
	}
	id, got, err := c.read()
	if err != nil {
		return err
	}
	if got.opcode != opOK || id != c.lastID || len(got.value) != 16 {
		return fmt.Errorf("BIND is answered with %v", got)
	}
	return c.useKey(hkdf(c.key, append(nonce, got.value...), []byte("cafe/1")))
}

func show(what string, got answer, err error) error {
	if err != nil {
		return err
	}
	switch {
	case got.opcode == opErr:
		fmt.Println(what, "ERR", binary.BigEndian.Uint16(got.value))
	case got.opcode == opNotFound:
		fmt.Println(what, "NOTFOUND")
	case what == "GET":
		fmt.Println(what, "OK", string(got.value))
	default:
		fmt.Println(what, "OK", binary.BigEndian.Uint64(got.value))
	}
	return nil
}

func (c *client) everyOperation() error {
	for _, each := range []struct {
		opcode     byte
		key, value string
	}{
		{opGet, "a", ""}, {opSet, "a", "one"}, {opGet, "a", ""}, {opSet, "a", ""}, {opGet, "a", ""},
		{opDel, "a", ""}, {opDel, "a", ""}, {opSet, "", "x"}, {opSet, "ä/ö", "ü"}, {opGet, "ä/ö", ""},
	} {
		got, err := c.call(each.opcode, each.key, each.value)
		if err := show([]string{"", "GET", "SET", "DEL"}[each.opcode], got, err); err != nil {
			return err
		}
	}
	return nil
}

// manyAtOnce sets and gets many keys, all calls in flight together.
func (c *client) manyAtOnce() error {
	for _, opcode := range []byte{opSet, opGet} {
		var group sync.WaitGroup
		failures := make(chan error, 1000)
		for number := 0; number < 1000; number++ {
			group.Add(1)
			go func(text string) {
				defer group.Done()
				value := ""
				if opcode == opSet {
					value = text
				}
				got, err := c.call(opcode, "many/"+text, value)
				if err == nil && (got.opcode != opOK || (opcode == opGet && string(got.value) != text)) {
					err = fmt.Errorf("%s: %v", text, got)
				}
				if err != nil {
					failures <- err
				}
			}(fmt.Sprint(number))
		}
		group.Wait()
		select {
		case err := <-failures:
			return err
		default:
		}
	}
	fmt.Println("MANY OK")
	return nil
}

func run(address, keyFile, way string) error {
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := &client{conn: conn, waiting: map[uint32]chan answer{}, encrypt: way == "encrypt"}
	if err := c.useKey(key); err != nil {
		return err
	}
	if way != "plain" {
		if err := c.bind(); err != nil {
			return err
		}
	}
	go c.readAll()
	if err := c.everyOperation(); err != nil {
		return err
	}
	return c.manyAtOnce()
}

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
