package agenttest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/services/executor"
)

// Opener opens a journal, the same one each time: what was saved is there again.
type Opener func(t *testing.T) (j executor.Journal, shut func())

// TestJournal is the contract of executor.Journal.
func TestJournal(t *testing.T, fresh func(t *testing.T) Opener) {
	tests := map[string]func(t *testing.T, open Opener){
		"keeps records over a restart": keepsRecords, "lists newest first": lists,
		"keeps the operator's word": keepsHost, "keeps both or neither": keepsBoth,
		"forgets closed ones only": forgets, "refuses after the end of ctx": obeysContext,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, fresh(t)) })
	}
}

// record is a record with something in every kind of field.
func record(n int, phase executor.Phase) executor.Record {
	at := time.Date(2026, 1, 2, 3, 4, 5, n, time.UTC)
	r := executor.Record{
		Ask: executor.Ask{
			Attempt: executor.AttemptID(fmt.Sprintf("%04x", n)), Job: executor.JobID{byte(n), 1},
			Spec: executor.JobSpec{
				Env: []string{"A=b"}, Cap: &executor.Prices{Model: executor.PriceFlat, Run: 1},
			},
			Terms: executor.Terms{AckKeys: []sig.PublicKey{{1}, {2}}, Budget: 1<<64 - 1},
		},
		Asked: at, Changed: at, Phase: phase, Prices: executor.Prices{Model: executor.PriceLinear},
		Ack: &executor.Ack{Note: executor.Note{Cumulative: 1 << 63}, Signature: sig.Signature{9}},
		Tally: executor.Tally{
			Used: executor.Metered{CPUNS: 7, Unmeasured: []string{"cpu_ns"}}, CPU: time.Second,
		},
		Stop:  &executor.StopCause{Reason: executor.EndCancelled, Grace: time.Second},
		Marks: []executor.Mark{{Upto: 1, Cumulative: 2, Used: executor.Metered{WallMS: 3}}, {Upto: 4}},
		Hold:  &executor.Hold{Since: at, Until: at.Add(time.Hour), End: at},
		Cut:   &executor.Cut{End: at, Seen: true},
		Ran:   5, Container: "ff", HandedTo: "fe",
	}
	if phase >= executor.PhaseEnded {
		r.Outcome = &executor.Outcome{Outputs: []executor.OutputFile{{Path: "/out/ä", Size: 3}}}
	}
	return r
}

func keepsRecords(t *testing.T, open Opener) {
	j, shut := open(t)
	want := map[executor.AttemptID]executor.Record{}
	for n := range 5 {
		r := record(n, executor.PhaseAsked)
		save(t, j, r)
		r = record(n, executor.Phase(1+n)) // replaces
		save(t, j, r)
		want[r.Ask.Attempt] = r
	}
	shut()
	j, shut = open(t)
	defer shut()
	for id, r := range want {
		got, err := j.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got); diff != "" {
			t.Errorf("record %s: %s", id, diff)
		}
	}
	unclosed, err := j.Unclosed(t.Context())
	if err != nil || len(unclosed) != 4 {
		t.Errorf("%d open records, %v, want 4", len(unclosed), err)
	}
	for _, r := range unclosed {
		if r.Phase == executor.PhaseClosed {
			t.Errorf("%s is closed", r.Ask.Attempt)
		}
	}
	if _, err := j.Get(t.Context(), "none"); !errors.Is(err, executor.ErrNoAttempt) {
		t.Errorf("an unknown attempt: %v", err)
	}
}

// keepsBoth saves two records in one.
func keepsBoth(t *testing.T, open Opener) {
	j, shut := open(t)
	save(t, j, record(1, executor.PhaseRunning))
	save(t, j, record(2, executor.PhaseTaken))
	want := []executor.Record{record(1, executor.PhaseClosed), record(2, executor.PhaseRunning)}
	e := event.Event{Topic: event.TopicJob, Type: "attempt.changed", Time: want[0].Asked}
	if err := j.SaveBoth(t.Context(), want[0], want[1], e, e); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.SaveBoth(ctx, record(1, 1), record(2, 1)); err == nil {
		t.Error("saved after the end of its context")
	}
	shut()
	j, shut = open(t)
	defer shut()
	for _, r := range want {
		got, err := j.Get(t.Context(), r.Ask.Attempt)
		if diff := cmp.Diff(r, got); err != nil || diff != "" {
			t.Errorf("record %s: %v, %s", r.Ask.Attempt, err, diff)
		}
	}
	unclosed, err := j.Unclosed(t.Context())
	if err != nil || len(unclosed) != 1 || unclosed[0].Ask.Attempt != want[1].Ask.Attempt {
		t.Errorf("open are %v, %v", unclosed, err)
	}
}

func keepsHost(t *testing.T, open Opener) {
	j, shut := open(t)
	s, err := j.Host(t.Context())
	if diff := cmp.Diff(executor.HostState{}, s); err != nil || diff != "" {
		t.Errorf("nothing was said: %v, %s", err, diff)
	}
	want := executor.HostState{Draining: true, Reason: "ä", Since: time.Unix(1, 2).UTC(),
		Set: &executor.PolicySet{Version: 7, Since: time.Unix(3, 4).UTC(), Policy: executor.Policy{
			DenyOwners: []string{"a", "b"}, MaxRunTime: time.Hour,
		}}}
	for _, s := range []executor.HostState{{Reason: "older"}, want} {
		if err := j.SaveHost(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	shut()
	j, shut = open(t)
	defer shut()
	s, err = j.Host(t.Context())
	if diff := cmp.Diff(want, s); err != nil || diff != "" {
		t.Errorf("read: %v, %s", err, diff)
	}
	list, err := j.List(t.Context(), time.Time{}, 10)
	if err != nil || len(list) != 0 {
		t.Errorf("the word is listed as an attempt: %v, %v", list, err)
	}
}

func lists(t *testing.T, open Opener) {
	j, shut := open(t)
	defer shut()
	for n := range 10 {
		save(t, j, record(n, executor.PhaseClosed))
	}
	var ids []executor.AttemptID
	var before time.Time
	for range 4 {
		page, err := j.List(t.Context(), before, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			ids = append(ids, r.Ask.Attempt)
			before = r.Asked
		}
	}
	var want []executor.AttemptID
	for n := 9; n >= 0; n-- {
		want = append(want, record(n, 0).Ask.Attempt)
	}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Error(diff)
	}
}

func forgets(t *testing.T, open Opener) {
	j, shut := open(t)
	defer shut()
	for n := range 10 {
		r := record(n, executor.PhaseClosed)
		if n == 1 {
			r = record(n, executor.PhaseRunning)
		}
		r.Held = n == 2 || n == 6 || n == 8
		save(t, j, r)
	}
	held, err := j.Held(t.Context(), "", 2)
	if err != nil || len(held) != 2 || held[0].Ask.Attempt != "0002" ||
		held[1].Ask.Attempt != "0006" {
		t.Errorf("held are %v, %v; want 0002 and 0006", held, err)
	}
	rest, err := j.Held(t.Context(), "0006", 2)
	if err != nil || len(rest) != 1 || rest[0].Ask.Attempt != "0008" {
		t.Errorf("then %v, %v; want 0008", rest, err)
	}
	if err := j.Forget(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	left, err := j.List(t.Context(), time.Time{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	var ids []executor.AttemptID
	for _, r := range left {
		ids = append(ids, r.Ask.Attempt)
	}
	want := []executor.AttemptID{"0009", "0008", "0007", "0006", "0005", "0002", "0001"}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Error(diff)
	}
	for _, r := range append(held, rest...) {
		r.Held = false
		save(t, j, r)
	}
	if held, err = j.Held(t.Context(), "", 9); err != nil || len(held) != 0 {
		t.Errorf("held are %v, %v; want none", held, err)
	}
}

func obeysContext(t *testing.T, open Opener) {
	j, shut := open(t)
	defer shut()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Save(ctx, record(1, executor.PhaseAsked)); err == nil {
		t.Error("saved after the end of its context")
	}
	if err := j.Publish(ctx); err == nil {
		t.Error("published after the end of its context")
	}
	if _, err := j.Get(t.Context(), "0001"); !errors.Is(err, executor.ErrNoAttempt) {
		t.Errorf("what was refused is there: %v", err)
	}
}

func save(t *testing.T, j executor.Journal, r executor.Record) {
	t.Helper()
	e := event.Event{Topic: event.TopicJob, Type: "attempt.changed", Time: r.Asked}
	if err := j.Save(t.Context(), r, e); err != nil {
		t.Fatal(err)
	}
}
