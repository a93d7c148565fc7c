// The model of the whole store: keys, values, versions, the one revision counter, the keys that end, and the remembered
// answers. A state is never changed: each change makes another one.
//
// The model has no clock. A key with a time to live is mortal: at some place of the order it dies, and is absent from
// there on; at a later one, which the log names, it ends. A lease ends at a place that the log names if it has keys.
package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	keyNotFound     = 4001
	versionMismatch = 4002
	keyExists       = 4003
	notAnInteger    = 4004
	integerOverflow = 4005
	leaseNotFound   = 4010
	fenced          = 4011

	blocked = -1 // a change in the place of a dead key, which has to end before
)

type entry struct {
	value   string
	version int64
	mortal  bool // it has a time to live
	dead    bool // its time is over
	lease   int64
}

// An item is an entry that is written; its version is that of the change.
type item struct {
	key   string
	entry entry
}

// A row is one entry of a read; Missing says that the key has none.
type row struct {
	Key     string `json:"key"`
	Value   string `json:"value,omitempty"`
	Version int64  `json:"version,omitempty"`
	Missing bool   `json:"missing,omitempty"`
}

// An answer is the result of one operation. A code other than 0 is a refusal, which changes nothing.
type answer struct {
	Code     int   // of the refusal
	Actual   int64 // the version that a failed if_version found
	Changed  bool  // whether the operation took a revision
	Revision int64 // of the store behind the operation
	Number   int64 // the sum, or how many keys
	Rows     []row
}

type store struct {
	revision int64
	entries  map[string]entry
	over     map[int64]bool    // leases that have ended
	answers  map[string]answer // to requests that are sent more than once, by their id
	text     string            // equal for equal states
}

func newStore(revision int64, entries map[string]entry, over map[int64]bool, answers map[string]answer) *store {
	var text strings.Builder
	fmt.Fprint(&text, revision)
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		found := entries[key]
		fmt.Fprintf(&text, " %q=%q@%d", key, found.value, found.version)
		if found.mortal || found.lease != 0 {
			fmt.Fprintf(&text, "(mortal %t, dead %t, lease %d)", found.mortal, found.dead, found.lease)
		}
	}
	for _, lease := range slices.Sorted(maps.Keys(over)) {
		fmt.Fprintf(&text, " -%d", lease)
	}
	for _, id := range slices.Sorted(maps.Keys(answers)) {
		fmt.Fprintf(&text, " %s=%v", id, answers[id])
	}
	return &store{revision, entries, over, answers, text.String()}
}

// change returns the state in which items are written and keys removed, all at the next revision.
func (s *store) change(removed []string, written ...item) (answer, *store) {
	for _, each := range written {
		if s.entries[each.key].dead {
			return answer{Code: blocked}, s
		}
	}
	entries := maps.Clone(s.entries)
	for _, key := range removed {
		delete(entries, key)
	}
	for _, each := range written {
		each.entry.version = s.revision + 1
		entries[each.key] = each.entry
	}
	return answer{}, newStore(s.revision+1, entries, s.over, s.answers)
}

// living gives the entry of a key, unless there is none or it is dead.
func (s *store) living(key string) (entry, bool) {
	found, present := s.entries[key]
	if found.dead {
		return entry{}, false
	}
	return found, present
}

// apply gives the one right answer to an operation, and the state behind it. A request whose id has an answer already
// is answered with that one.
func (s *store) apply(op *operation) (answer, *store) {
	if known, ok := s.answers[op.ID]; ok && op.ID != "" {
		return known, s
	}
	result, next := s.judge(op)
	result.Revision, result.Changed = next.revision, next.revision > s.revision
	if op.ID != "" && result.Code == 0 {
		answers := maps.Clone(next.answers)
		answers[op.ID] = result
		next = newStore(next.revision, next.entries, next.over, answers)
	}
	return result, next
}

func (s *store) judge(op *operation) (answer, *store) {
	switch {
	case op.Fence != nil && !s.stands(*op.Fence):
		return answer{Code: fenced}, s
	case op.Lease != 0 && s.over[op.Lease]:
		return answer{Code: leaseNotFound}, s
	}
	switch op.Method {
	case "get":
		return answer{Rows: []row{s.row(op.Key)}}, s
	case "get_many":
		return answer{Rows: s.rows(op.Keys)}, s
	case "exists":
		return answer{Number: int64(len(s.present([]string{op.Key})))}, s
	case "count":
		return answer{Number: int64(len(s.selected(op)))}, s
	case "scan":
		rows := s.rows(s.selected(op))
		return answer{Rows: rows, Number: int64(len(rows))}, s
	case "set":
		return s.set(op)
	case "set_many":
		var items []item
		for _, each := range op.Items {
			items = append(items, item{each[0], entry{value: each[1], mortal: op.TTL != 0, lease: op.Lease}})
		}
		return s.change(nil, items...)
	case "delete":
		if code, actual := s.condition(op); code != 0 {
			return answer{Code: code, Actual: actual}, s
		}
		return s.remove([]string{op.Key})
	case "delete_many":
		return s.remove(op.Keys)
	case "clear":
		return s.remove(s.selected(op))
	case "increment":
		return s.increment(op)
	case "rename":
		return s.rename(op)
	case "transact":
		return s.transact(op)
	case "expire":
		return s.expire(op)
	case "grant_lease":
		return s.change(nil)
	case "die":
		return answer{}, s.die(op)
	case "end":
		return s.end(op)
	}
	panic("unknown method " + op.Method)
}

func (s *store) set(op *operation) (answer, *store) {
	if code, actual := s.condition(op); code != 0 {
		return answer{Code: code, Actual: actual}, s
	}
	result, next := s.change(nil, item{op.Key, entry{value: op.Value, mortal: op.TTL != 0, lease: op.Lease}})
	result.Rows = []row{s.row(op.Key)}
	return result, next
}

// expire gives a key another time to live, or none. It belongs to no lease any more.
func (s *store) expire(op *operation) (answer, *store) {
	found, present := s.living(op.Key)
	if !present {
		return answer{Code: keyNotFound}, s
	}
	return s.change(nil, item{op.Key, entry{value: found.value, mortal: op.TTL != 0}})
}

// die makes a key absent whose time is over. It changes no revision, and nothing if this entry is not there.
func (s *store) die(op *operation) *store {
	found, present := s.living(op.Key)
	if !present || !found.mortal || found.version != op.Version {
		return s
	}
	entries := maps.Clone(s.entries)
	found.dead = true
	entries[op.Key] = found
	return newStore(s.revision, entries, s.over, s.answers)
}

// end removes dead keys, and leases with all of their keys, and nothing else.
func (s *store) end(op *operation) (answer, *store) {
	over, of := maps.Clone(s.over), map[int64]int{}
	for _, key := range op.Keys {
		found, present := s.entries[key]
		if !present || (found.lease == 0 && !found.dead) {
			return answer{Code: blocked}, s
		}
		if found.lease != 0 {
			over[found.lease] = true
			of[found.lease]++
		}
	}
	for lease, ended := range of {
		if s.attached(lease) != ended {
			return answer{Code: blocked}, s
		}
	}
	_, next := s.change(op.Keys)
	return answer{}, newStore(next.revision, next.entries, over, s.answers)
}

func (s *store) withoutDead() *store {
	entries := maps.Clone(s.entries)
	maps.DeleteFunc(entries, func(_ string, found entry) bool { return found.dead })
	return newStore(s.revision, entries, s.over, s.answers)
}

// attached says how many keys belong to a lease.
func (s *store) attached(lease int64) int {
	count := 0
	for _, found := range s.entries {
		if found.lease == lease {
			count++
		}
	}
	return count
}

// stands says whether an entry of this version belongs to a lease.
func (s *store) stands(token int64) bool {
	for _, found := range s.entries {
		if found.version == token && found.lease != 0 {
			return true
		}
	}
	return false
}

// without gives the state in which a lease that has no keys is over.
func (s *store) without(lease int64) *store {
	over := maps.Clone(s.over)
	over[lease] = true
	return newStore(s.revision, s.entries, over, s.answers)
}

func (s *store) condition(op *operation) (code int, actual int64) {
	found, present := s.living(op.Key)
	switch {
	case op.IfVersion != nil && *op.IfVersion != found.version:
		return versionMismatch, found.version
	case op.Condition == "absent" && present:
		return keyExists, 0
	case op.Condition == "present" && !present:
		return keyNotFound, 0
	}
	return 0, 0
}

func (s *store) remove(keys []string) (answer, *store) {
	there := s.present(keys)
	if len(there) == 0 {
		return answer{}, s
	}
	result, next := s.change(there)
	result.Number = int64(len(there))
	return result, next
}

func (s *store) increment(op *operation) (answer, *store) {
	number := op.Initial
	found, present := s.living(op.Key)
	if present {
		parsed, err := strconv.ParseInt(found.value, 10, 64)
		if err != nil || strconv.FormatInt(parsed, 10) != found.value {
			return answer{Code: notAnInteger}, s
		}
		number = parsed
	}
	sum := number + op.Delta
	if (sum > number) != (op.Delta > 0) && op.Delta != 0 {
		return answer{Code: integerOverflow}, s
	}
	found.value = strconv.FormatInt(sum, 10)
	result, next := s.change(nil, item{op.Key, found})
	result.Number = sum
	return result, next
}

func (s *store) rename(op *operation) (answer, *store) {
	found, present := s.living(op.Key)
	if !present {
		return answer{Code: keyNotFound}, s
	}
	if _, taken := s.living(op.NewKey); taken && op.Condition == "absent" {
		return answer{Code: keyExists}, s
	}
	return s.change([]string{op.Key}, item{op.NewKey, found})
}

// transact makes the operations one after the other, each on the state that the ones before it have made, at one
// revision. One that fails leaves the first state.
func (s *store) transact(op *operation) (answer, *store) {
	succeeded, branch, told := int64(1), op.Then, answer{Rows: []row{}}
	for _, each := range op.Compares {
		if !s.holds(each) {
			succeeded, branch = 0, op.Otherwise
		}
	}
	made, changed := s.withoutDead(), false
	for at := range branch {
		result, next := made.judge(&branch[at])
		if result.Code != 0 {
			return answer{Code: result.Code, Actual: result.Actual}, s
		}
		if branch[at].Method == "get" {
			told.Rows = append(told.Rows, result.Rows...)
		}
		changed = changed || next.revision > s.revision
		made = newStore(s.revision, next.entries, s.over, s.answers)
	}
	told.Number = succeeded
	if !changed {
		return told, s
	}
	entries := maps.Clone(made.entries)
	for key, found := range s.entries {
		if _, written := entries[key]; found.dead && written {
			return answer{Code: blocked}, s
		} else if found.dead {
			entries[key] = found
		}
	}
	return told, newStore(s.revision+1, entries, s.over, s.answers)
}

func (s *store) holds(c compare) bool {
	found, present := s.living(c.Key)
	if c.Field == "exists" {
		return present == (c.Number == 1)
	}
	order := cmp.Compare(found.version, c.Number)
	if c.Field == "value" {
		if !present {
			return false
		}
		order = cmp.Compare(found.value, c.Value)
	}
	return map[string]bool{"=": order == 0, "!=": order != 0, "<": order < 0, ">": order > 0}[c.Operator]
}

func (s *store) row(key string) row {
	found, present := s.living(key)
	return row{key, found.value, found.version, !present}
}

func (s *store) rows(keys []string) []row {
	rows := make([]row, 0, len(keys))
	for _, key := range keys {
		rows = append(rows, s.row(key))
	}
	return rows
}

// present gives those of the keys that have a living entry, each once.
func (s *store) present(keys []string) []string {
	var there []string
	for _, key := range keys {
		if _, present := s.living(key); present && !slices.Contains(there, key) {
			there = append(there, key)
		}
	}
	return there
}

// selected gives the keys of a range in its order.
func (s *store) selected(op *operation) []string {
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		if _, present := s.living(key); present && strings.HasPrefix(key, op.Prefix) {
			keys = append(keys, key)
		}
	}
	if op.Reverse {
		slices.Reverse(keys)
	}
	if op.Limit != nil {
		keys = keys[:min(len(keys), *op.Limit)]
	}
	return keys
}
