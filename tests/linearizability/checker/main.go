// Says of recorded histories whether they are linearizable: whether some order of the operations, which keeps each
// between its call and its return, gives exactly the answers that the clients were given.
//
// usage: checker [-limit 60s] HISTORY...
//
// A history is JSON lines, an operation on each (history.py writes them), and ends with a read that tells the revision
// behind everything else. Each history gets a line, "Ok", "Illegal" or
// "Unknown" (the limit was too short) and its name; what does not fit in an illegal one follows, and a picture of it is
// written to HISTORY.html. The exit code is 0 if all are Ok.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	lineSizeMax = 1 << 20 // of an operation: some values of a few kilobytes
	shownMax    = 12      // operations around the place where a history stops making sense
)

// An operation as it was recorded. Fields of the argument that a method has not are left out.
type operation struct {
	Client  int    `json:"client"`
	Call    int64  `json:"call"`
	Return  *int64 `json:"return"` // nil: it never returned, and may take effect at any later time or never
	Method  string `json:"method"`
	ID      string `json:"id,omitempty"` // of a request that is sent more than once
	Outcome string `json:"outcome"`
	Told    told   `json:"told,omitempty"`

	Key       string      `json:"key,omitempty"`
	NewKey    string      `json:"new_key,omitempty"`
	Keys      []string    `json:"keys,omitempty"`
	Items     [][2]string `json:"items,omitempty"`
	Value     string      `json:"value,omitempty"`
	IfVersion *int64      `json:"if_version,omitempty"`
	Condition string      `json:"if,omitempty"`
	Delta     int64       `json:"delta,omitempty"`
	Initial   int64       `json:"initial,omitempty"`
	Prefix    string      `json:"prefix,omitempty"`
	Limit     *int        `json:"limit,omitempty"`
	Reverse   bool        `json:"reverse,omitempty"`
	TTL       int64       `json:"ttl_ms,omitempty"`
	Lease     int64       `json:"lease,omitempty"`
	Fence     *int64      `json:"fence,omitempty"`
	Version   int64       `json:"version,omitempty"` // of the entry that dies

	Compares  []compare   `json:"compares,omitempty"`
	Then      []operation `json:"then,omitempty"`
	Otherwise []operation `json:"otherwise,omitempty"`
}

// A compare of a transact: with a number (a version, or 1 and 0 for whether the key exists), or with a value.
type compare struct {
	Key      string `json:"key"`
	Field    string `json:"field"`
	Operator string `json:"operator"`
	Number   int64  `json:"number,omitempty"`
	Value    string `json:"value,omitempty"`
}

// told is what the caller was told; a client that was not told something has nil there.
type told struct {
	Code     int    `json:"code,omitempty"`
	Actual   *int64 `json:"actual,omitempty"`
	Revision *int64 `json:"revision,omitempty"`
	Number   *int64 `json:"number,omitempty"`
	Rows     *[]row `json:"rows,omitempty"`
	KeysOnly bool   `json:"keys_only,omitempty"`
	Loose    bool   `json:"loose,omitempty"` // the revision is that of the moment of answering, which may be later
}

func (t *told) agrees(right answer) bool {
	if t.Code != right.Code {
		return false
	}
	if right.Code != 0 {
		return t.Actual == nil || *t.Actual == right.Actual
	}
	if t.Number != nil && *t.Number != right.Number {
		return false
	}
	if t.Rows != nil && !slices.EqualFunc(*t.Rows, right.Rows, func(a, b row) bool {
		return a.Key == b.Key && a.Version == b.Version && a.Missing == b.Missing && (t.KeysOnly || a.Value == b.Value)
	}) {
		return false
	}
	if t.Revision == nil || *t.Revision == right.Revision {
		return true
	}
	return t.Loose && !right.Changed && *t.Revision > right.Revision
}

// A judge is the model, with facts of the whole history that spare it most of the search.
type judge struct {
	owner map[int64]*operation // of revisions whose changes were answered
	shown map[int64][]row      // what reads told of the store at a revision
	alive map[entryID]int64    // the last revision at which a read found an entry
	last  int64                // the revision that the last read told
}

// An entryID names an entry: no two entries of a key have the same version.
type entryID struct {
	key     string
	version int64
}

func newJudge(history []porcupine.Operation) *judge {
	j := &judge{owner: map[int64]*operation{}, shown: map[int64][]row{}, alive: map[entryID]int64{}}
	for _, each := range history {
		op := each.Input.(*operation)
		j.note(op)
		if op.Told.Revision == nil {
			continue
		}
		j.last = max(j.last, *op.Told.Revision)
		switch op.Method {
		case "set", "set_many", "increment", "rename", "expire", "grant_lease", "end":
			j.owner[*op.Told.Revision] = op
		case "delete", "delete_many", "clear":
			if *op.Told.Number > 0 {
				j.owner[*op.Told.Revision] = op
			}
		case "transact":
			if !op.Told.Loose {
				j.owner[*op.Told.Revision] = op
			}
		}
	}
	return j
}

// note takes over what an operation was told of keys. An entry was there, unchanged, from its version on.
func (j *judge) note(op *operation) {
	if op.Told.Rows == nil || op.Told.KeysOnly || op.Told.Revision == nil {
		return
	}
	if op.Method == "transact" {
		return // its reads see what it has changed itself
	}
	end := *op.Told.Revision
	if op.Method == "set" {
		end-- // it told the entry of before
	}
	for _, told := range *op.Told.Rows {
		begin := told.Version
		if told.Missing {
			begin = end
		} else {
			id := entryID{told.Key, told.Version}
			j.alive[id] = max(j.alive[id], end)
		}
		for revision := begin; revision <= end; revision++ {
			j.shown[revision] = append(j.shown[revision], told)
		}
	}
}

// fits says whether a change may have made a state: where its revision belongs to another's answer it has not, unless
// the two are attempts at one request, and what was read at that revision must be there.
func (j *judge) fits(op *operation, made *store) bool {
	owner := j.owner[made.revision]
	if owner != nil && owner != op && (op.ID == "" || owner.ID != op.ID) {
		return false
	}
	for _, told := range j.shown[made.revision] {
		// A mortal key may have died at this revision, before it was found missing.
		if found := made.row(told.Key); found != told && !(told.Missing && made.entries[told.Key].mortal) {
			return false
		}
	}
	return made.revision <= j.last
}

func (j *judge) step(state, input, _ any) (bool, any) {
	op, before := input.(*operation), state.(*store)
	if op.Told.Code == leaseNotFound && !before.over[op.Lease] {
		// A lease without keys ends unseen.
		return before.attached(op.Lease) == 0, before.without(op.Lease)
	}
	right, next := before.apply(op)
	changed := next.revision > before.revision
	if op.Method == "die" && next != before {
		return before.revision >= j.alive[entryID{op.Key, op.Version}], next
	}
	switch op.Outcome {
	case "unknown":
		// It was applied where that fits. Otherwise its place is behind everything, where it was never applied: to have
		// no effect in the midst of the others would come to the same.
		if changed && j.fits(op, next) {
			return true, next
		}
		return before.revision == j.last, before
	case "applied": // the answer itself was not kept
		return right.Code == 0 && *op.Told.Revision == right.Revision, next
	default:
		return op.Told.agrees(right) && (!changed || j.fits(op, next)), next
	}
}

func (j *judge) model() porcupine.Model {
	return porcupine.Model{
		Init:              func() any { return newStore(0, map[string]entry{}, map[int64]bool{}, map[string]answer{}) },
		Step:              j.step,
		Equal:             func(a, b any) bool { return a.(*store).text == b.(*store).text },
		DescribeOperation: func(input, _ any) string { return describe(input.(*operation)) },
		DescribeState:     func(state any) string { return state.(*store).text },
	}
}

func describe(op *operation) string {
	text, err := json.Marshal(op)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func read(path string) ([]porcupine.Operation, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var history []porcupine.Operation
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, lineSizeMax)
	for lines.Scan() {
		op := &operation{}
		if err := json.Unmarshal(lines.Bytes(), op); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, len(history)+1, err)
		}
		end := int64(math.MaxInt64)
		if op.Return != nil {
			end = *op.Return
		}
		history = append(history, porcupine.Operation{ClientId: op.Client, Input: op, Call: op.Call, Return: end})
	}
	return history, lines.Err()
}

// explain prints the end of the longest order that makes sense, and what should have come next.
func explain(model porcupine.Model, info porcupine.LinearizationInfo, history []porcupine.Operation) {
	var longest []porcupine.Operation
	for _, partial := range info.PartialLinearizationsOperations()[0] {
		if len(partial) > len(longest) {
			longest = partial
		}
	}
	state, placed := model.Init(), map[any]bool{}
	for at, op := range longest {
		placed[op.Input] = true
		_, state = model.Step(state, op.Input, nil)
		if at >= len(longest)-shownMax {
			fmt.Println("  ", describe(op.Input.(*operation)))
		}
	}
	fmt.Println("  the store is then", state.(*store).text)
	shown := 0
	for _, op := range history {
		if !placed[op.Input] && shown < shownMax {
			shown++
			fmt.Println("  not placed:", describe(op.Input.(*operation)))
		}
	}
}

func check(path string, limit time.Duration) (bool, error) {
	history, err := read(path)
	if err != nil {
		return false, err
	}
	model := newJudge(history).model()
	result, info := porcupine.CheckOperationsVerbose(model, history, limit)
	fmt.Println(result, path)
	if result == porcupine.Illegal {
		explain(model, info, history)
		return false, porcupine.VisualizePath(model, info, path+".html")
	}
	return result == porcupine.Ok, nil
}

func main() {
	limit := flag.Duration("limit", time.Minute, "how long to look for an order, for each history")
	flag.Parse()
	allOk := true
	for _, path := range flag.Args() {
		ok, err := check(path, *limit)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		allOk = allOk && ok
	}
	if !allOk {
		os.Exit(1)
	}
}
