// The reader of bench/watches.py: many watches of a node or of an etcd, whose events it counts and does not keep.
//
// It does as little for an event as can be, so that the server is what is measured: of a message it reads how many
// events are in it, and of a few events the value, which is the time at which the write of it was begun.
//
// The first line of standard input is the task as JSON: the bytes that each connection sends are made by the bench. Then
// it says "begun" once every watch has begun. Each later line "restart PART" forgets what was counted and looks at the
// lateness of this part of the events; "told" says the counts, "late" the latenesses.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Task is what one process reads.
type Task struct {
	Protocol    string
	Address     string
	Consecutive bool // each watch is told of every write, so that the revisions have no gap
	Connections []Connection
}

// Connection has the bytes to send and the watches that they begin: the first bytes, and those behind the answer.
type Connection struct {
	Hello    []byte
	Requests []byte
	Watches  int
	Window   int // bytes that the server may have under way to it
}

// Readings counts the events of the watches of one connection.
type Readings struct {
	told        []atomic.Int64
	last        []int64
	consecutive bool
	begun       *sync.WaitGroup

	mutex sync.Mutex
	late  []float64
}

// The part of the events whose lateness is looked at, as a float's bits do not fit an atomic: in millionths.
var partMillionths atomic.Int64

// Count takes the events of one message, the last of which has this revision. It returns which of them is to be looked
// at, or -1.
func (r *Readings) Count(watch int, events int, revision int64) int {
	if r.consecutive {
		first := revision - int64(events) + 1
		if r.last[watch] != 0 && first != r.last[watch]+1 {
			log.Fatalf("watch %d was told of revision %d behind %d", watch, first, r.last[watch])
		}
		r.last[watch] = revision
	}
	r.told[watch].Add(int64(events))
	if rand.Float64()*1e6 < float64(events)*float64(partMillionths.Load()) {
		return rand.IntN(events)
	}
	return -1
}

// Late notes an event by its value.
func (r *Readings) Late(value []byte) {
	begun, err := strconv.ParseFloat(string(value), 64)
	if err != nil || begun == 0 {
		return
	}
	late := float64(time.Now().UnixMicro())/1e6 - begun
	r.mutex.Lock()
	r.late = append(r.late, late)
	r.mutex.Unlock()
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	first, err := lines.ReadBytes('\n')
	if err != nil {
		log.Fatal(err)
	}
	var task Task
	if err := json.Unmarshal(first, &task); err != nil {
		log.Fatal(err)
	}
	read := map[string]func(string, Connection, *Readings){"haptera": readNode, "etcd": readEtcd}[task.Protocol]
	var begun sync.WaitGroup
	all := make([]*Readings, len(task.Connections))
	for i, each := range task.Connections {
		all[i] = &Readings{
			told:        make([]atomic.Int64, each.Watches),
			last:        make([]int64, each.Watches),
			consecutive: task.Consecutive,
			begun:       &begun,
		}
		begun.Add(each.Watches)
		go read(task.Address, each, all[i])
	}
	begun.Wait()
	fmt.Println("begun")
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		switch words := strings.Fields(line); words[0] {
		case "restart":
			part, _ := strconv.ParseFloat(words[1], 64)
			partMillionths.Store(int64(part * 1e6))
			for _, each := range all {
				for i := range each.told {
					each.told[i].Store(0)
				}
				each.mutex.Lock()
				each.late = nil
				each.mutex.Unlock()
			}
			fmt.Println("[]")
		case "told":
			told := []int64{}
			for _, each := range all {
				for i := range each.told {
					told = append(told, each.told[i].Load())
				}
			}
			say(told)
		case "late":
			late := []float64{}
			for _, each := range all {
				each.mutex.Lock()
				late = append(late, each.late...)
				each.mutex.Unlock()
			}
			say(late)
		}
	}
}

func say(answer any) {
	line, err := json.Marshal(answer)
	if err != nil {
		log.Fatal(err)
	}
	os.Stdout.Write(append(line, '\n'))
}
