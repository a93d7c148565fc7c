// The model of the whole store: keys, values, versions, the one revision counter, and the remembered answers.
// A state is never changed: each change makes another one.
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
)

type entry struct {
	Value   string `json:"value,omitempty"`
	Version int64  `json:"version,omitempty"`
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
	answers  map[string]answer // to requests that are sent more than once, by their id
	text     string            // equal for equal states
}

func newStore(revision int64, entries map[string]entry, answers map[string]answer) *store {
	var text strings.Builder
	fmt.Fprint(&text, revision)
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		fmt.Fprintf(&text, " %q=%q@%d", key, entries[key].Value, entries[key].Version)
	}
	for _, id := range slices.Sorted(maps.Keys(answers)) {
		fmt.Fprintf(&text, " %s=%v", id, answers[id])
	}
	return &store{revision, entries, answers, text.String()}
}

// change returns the state in which items are written and keys removed, all at the next revision.
func (s *store) change(removed []string, written [][2]string) *store {
	entries := maps.Clone(s.entries)
	for _, key := range removed {
		delete(entries, key)
	}
	for _, item := range written {
		entries[item[0]] = entry{item[1], s.revision + 1}
	}
	return newStore(s.revision+1, entries, s.answers)
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
		next = newStore(next.revision, next.entries, answers)
	}
	return result, next
}

func (s *store) judge(op *operation) (answer, *store) {
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
		return answer{}, s.change(nil, op.Items)
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
	}
	panic("unknown method " + op.Method)
}

func (s *store) set(op *operation) (answer, *store) {
	if code, actual := s.condition(op); code != 0 {
		return answer{Code: code, Actual: actual}, s
	}
	return answer{Rows: []row{s.row(op.Key)}}, s.change(nil, [][2]string{{op.Key, op.Value}})
}

func (s *store) condition(op *operation) (code int, actual int64) {
	found, present := s.entries[op.Key]
	switch {
	case op.IfVersion != nil && *op.IfVersion != found.Version:
		return versionMismatch, found.Version
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
	return answer{Number: int64(len(there))}, s.change(there, nil)
}

func (s *store) increment(op *operation) (answer, *store) {
	number := op.Initial
	if found, present := s.entries[op.Key]; present {
		parsed, err := strconv.ParseInt(found.Value, 10, 64)
		if err != nil || strconv.FormatInt(parsed, 10) != found.Value {
			return answer{Code: notAnInteger}, s
		}
		number = parsed
	}
	sum := number + op.Delta
	if (sum > number) != (op.Delta > 0) && op.Delta != 0 {
		return answer{Code: integerOverflow}, s
	}
	return answer{Number: sum}, s.change(nil, [][2]string{{op.Key, strconv.FormatInt(sum, 10)}})
}

func (s *store) rename(op *operation) (answer, *store) {
	found, present := s.entries[op.Key]
	if !present {
		return answer{Code: keyNotFound}, s
	}
	if _, taken := s.entries[op.NewKey]; taken && op.Condition == "absent" {
		return answer{Code: keyExists}, s
	}
	return answer{}, s.change([]string{op.Key}, [][2]string{{op.NewKey, found.Value}})
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
	made, changed := s, false
	for at := range branch {
		result, next := made.judge(&branch[at])
		if result.Code != 0 {
			return answer{Code: result.Code, Actual: result.Actual}, s
		}
		if branch[at].Method == "get" {
			told.Rows = append(told.Rows, result.Rows...)
		}
		changed = changed || next.revision > s.revision
		made = newStore(s.revision, next.entries, s.answers)
	}
	if changed {
		made = newStore(s.revision+1, made.entries, s.answers)
	}
	told.Number = succeeded
	return told, made
}

func (s *store) holds(c compare) bool {
	found, present := s.entries[c.Key]
	if c.Field == "exists" {
		return present == (c.Number == 1)
	}
	order := cmp.Compare(found.Version, c.Number)
	if c.Field == "value" {
		if !present {
			return false
		}
		order = cmp.Compare(found.Value, c.Value)
	}
	return map[string]bool{"=": order == 0, "!=": order != 0, "<": order < 0, ">": order > 0}[c.Operator]
}

func (s *store) row(key string) row {
	found, present := s.entries[key]
	return row{key, found.Value, found.Version, !present}
}

func (s *store) rows(keys []string) []row {
	rows := make([]row, 0, len(keys))
	for _, key := range keys {
		rows = append(rows, s.row(key))
	}
	return rows
}

// present gives those of the keys that have an entry, each once.
func (s *store) present(keys []string) []string {
	var there []string
	for _, key := range keys {
		if _, present := s.entries[key]; present && !slices.Contains(there, key) {
			there = append(there, key)
		}
	}
	return there
}

// selected gives the keys of a range in its order.
func (s *store) selected(op *operation) []string {
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		if strings.HasPrefix(key, op.Prefix) {
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
