package executor_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/agenttest"
	"github.com/united-containers/ucn/services/executor/fake"
)

// inWorld runs a test with its own clock.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		f(t, w)
	})
}

func TestRunsMetersAndIsPaid(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "use", "500", "out", "hello", "write", "/out/a.txt", "abc", "sleep", "30s")
		lease := w.lease(agent, ask)
		c := &client{w: w}
		o := c.run(w.task(ask, lease.ID))
		if o.Reason != executor.EndCompleted || o.Code != 0 {
			t.Fatalf("outcome %+v", o)
		}
		if want := []string{"hello", "write ok"}; !slices.Equal(c.lines, want) {
			t.Errorf("log %q, want %q", c.lines, want)
		}
		wantFile := executor.OutputFile{
			Path: "/out/a.txt", CID: agenttest.CID([]byte("abc")), Size: 3,
		}
		if diff := cmp.Diff([]executor.OutputFile{wantFile}, o.Outputs); diff != "" {
			t.Error(diff)
		}
		stored := string(w.files.Stored()[o.LogCID])
		if strings.Count(stored, "\n") != 2 || !strings.Contains(stored, `"text":"hello"`) {
			t.Errorf("stored log %q", stored)
		}
		checkUsage(t, o)
		w.closed(ask.Attempt)
		paid := w.ledger.Read(lease.ID)
		if paid.Paid != o.Amount || !paid.Settled {
			t.Errorf("the lease paid %d, settled %v, want %d", paid.Paid, paid.Settled, o.Amount)
		}
		if list, err := w.host.Driver("e").List(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("%d containers left, %v", len(list), err)
		}
		want := []jobv1.State{
			jobv1.State_STATE_STARTING, jobv1.State_STATE_RUNNING, jobv1.State_STATE_ENDED,
		}
		if got := w.states(); !slices.Equal(got, want) {
			t.Errorf("events told %v, want %v", got, want)
		}
	})
}

// checkUsage wants half a core, 64 MiB and the prices of the default for 30 s.
func checkUsage(t *testing.T, o *executor.Outcome) {
	t.Helper()
	if o.Usage.CPUNS != uint64(15*time.Second) || o.Usage.WallMS != 30_000 || o.Usage.Runs != 1 {
		t.Errorf("usage %+v, want 15 s CPU in 30 s", o.Usage)
	}
	if want := uint64(64 << 10 * 30_000); o.Usage.MemoryKiBMS != want {
		t.Errorf("memory %d, want %d", o.Usage.MemoryKiBMS, want)
	}
	prices := executor.DefaultConfig().Prices
	want, err := price.Amount(prices.Rules(), o.Usage)
	if err != nil || uint64(want) != o.Amount || want == 0 {
		t.Errorf("amount %d, want %d, %v", o.Amount, want, err)
	}
}

func TestEnds(t *testing.T) {
	tests := map[string]struct {
		args   []string
		spoil  func(a *executor.Ask)
		reason executor.EndReason
		code   int
		says   string
	}{
		"exit code": {args: []string{"exit", "3"}, reason: executor.EndFailed, code: 3,
			says: "code 3"},
		"out of memory": {args: []string{"eat", "100"}, reason: executor.EndFailed, code: 137,
			says: "out of memory: limit 64 MiB"},
		"run time": {args: []string{"forever"}, reason: executor.EndFailed, code: 143,
			spoil: func(a *executor.Ask) { a.Spec.RunTime = 10 * time.Second },
			says:  "run time limit of 10s reached"},
		"ignores SIGTERM": {args: []string{"deaf"}, reason: executor.EndFailed, code: 137,
			spoil: func(a *executor.Ask) { a.Spec.RunTime = 10 * time.Second },
			says:  "run time limit"},
		"lease ends": {args: []string{"forever"}, reason: executor.EndExpired, code: 143,
			spoil: func(a *executor.Ask) {
				a.Terms.Until = uint64(time.Now().Add(90 * time.Second).UnixMilli())
			}, says: "the lease ended"},
		"budget": {args: []string{"use", "1000", "forever"}, reason: executor.EndExhausted, code: 143,
			spoil: func(a *executor.Ask) { a.Terms.Budget = ucn / 100 }, says: "budget"},
		"output missing": {args: []string{"exit", "0"}, reason: executor.EndCompleted,
			spoil: func(a *executor.Ask) { a.Spec.Outputs = []string{"/out/a/b.txt"} },
			says:  "/out/a/b.txt: was not written"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				agent := w.start()
				ask := w.ask(1, tt.args...)
				if tt.spoil != nil {
					tt.spoil(&ask)
				}
				lease := w.lease(agent, ask)
				o := (&client{w: w}).run(w.task(ask, lease.ID))
				if o.Reason != tt.reason || o.Code != tt.code || !strings.Contains(o.Message, tt.says) {
					t.Errorf("outcome %s, code %d, %q, want %s, %d, %q", o.Reason, o.Code, o.Message,
						tt.reason, tt.code, tt.says)
				}
				w.closed(ask.Attempt)
				if paid := w.ledger.Read(lease.ID).Paid; paid != o.Amount {
					t.Errorf("paid %d, want %d", paid, o.Amount)
				}
			})
		})
	}
}

// TestTrustBoundsAnAbsentClient runs a program for an hour whose client countersigns nothing.
func TestTrustBoundsAnAbsentClient(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "use", "1000", "sleep", "1h")
		lease := w.lease(agent, ask)
		o := (&client{w: w, away: true}).run(w.task(ask, lease.ID))
		if o.Reason != executor.EndExhausted || !strings.Contains(o.Message, "not acknowledged") {
			t.Errorf("outcome %s %q", o.Reason, o.Message)
		}
		w.closed(ask.Attempt)
		trust := lease.Lease.Trust
		if paid := w.ledger.Read(lease.ID).Paid; paid > trust || paid < trust/2 {
			t.Errorf("paid %d of a trust of %d", paid, trust)
		}
	})
}

// TestCountersignedBeyondTrustIsPaid acknowledges an hour of usage, sixty times the trust.
func TestCountersignedBeyondTrustIsPaid(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "use", "1000", "sleep", "30m")
		ask.Terms.Budget = 10 * ucn
		lease := w.lease(agent, ask)
		o := (&client{w: w}).run(w.task(ask, lease.ID))
		w.closed(ask.Attempt)
		paid := w.ledger.Read(lease.ID)
		if o.Reason != executor.EndCompleted || paid.Paid != o.Amount || o.Amount < 20*lease.Lease.Trust {
			t.Errorf("%s, paid %d of %d, trust %d", o.Reason, paid.Paid, o.Amount, lease.Lease.Trust)
		}
		if paid.Charges < 10 || paid.Charges > 80 {
			t.Errorf("%d charges in half an hour, want about one a minute", paid.Charges)
		}
	})
}

// TestNothingIsChargedFor covers attempts whose program never ran.
func TestNothingIsChargedFor(t *testing.T) {
	missing := "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
	tests := map[string]struct {
		prepare func(w *world, a *executor.Ask)
		says    string
	}{
		"no such program": {func(_ *world, a *executor.Ask) { a.Spec.Command = []string{"/no"} },
			"could not be started: /no: no such file"},
		"input missing": {func(_ *world, a *executor.Ask) {
			a.Spec.Inputs = []executor.Input{{CID: "c", Path: "/in"}}
		}, "no such file"},
		"image missing": {func(w *world, a *executor.Ask) {
			w.host = fake.NewHost(fake.Options{Hook: w.driverHook})
			a.Spec.Image = executor.ImageID(missing)
		}, "no such file"},
		"image bytes do not match": {func(w *world, a *executor.Ask) {
			w.host = fake.NewHost(fake.Options{Hook: w.driverHook})
			a.Spec.Image = executor.ImageID(missing)
			w.files.AddImage(a.Spec.Image, make([]byte, 1024))
		}, "do not match"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.cfg.Prices = executor.Prices{Model: executor.PriceLinear, Run: 1000, CoreHour: ucn}
				w.start()
				ask := w.ask(1, "exit", "0")
				w.stop()
				tt.prepare(w, &ask)
				agent := w.start()
				ask.Offer = w.offer()
				lease := w.lease(agent, ask)
				o := (&client{w: w}).run(w.task(ask, lease.ID))
				if o.Reason != executor.EndRefused || !strings.Contains(o.Message, tt.says) ||
					o.Amount != 0 {
					t.Errorf("outcome %s %q, %d grains, want refused %q and none", o.Reason, o.Message,
						o.Amount, tt.says)
				}
				w.closed(ask.Attempt)
				if got := w.ledger.Read(lease.ID); got.Paid != 0 || !got.Settled {
					t.Errorf("the lease paid %d, settled %v; want 0 and given back", got.Paid, got.Settled)
				}
			})
		})
	}
}

func TestLeaseWithoutTaskIsGivenBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		placed, lost := w.ask(1, "exit", "0"), w.ask(2, "exit", "0")
		lease := w.lease(agent, placed)
		if answer, err := agent.Ask(t.Context(), lost); err != nil || answer.Lease == nil {
			t.Fatal(answer.Declined, err)
		}
		w.closed(placed.Attempt)
		w.closed(lost.Attempt)
		if got := w.ledger.Read(lease.ID); got.Paid != 0 || !got.Settled {
			t.Errorf("the lease paid %d, settled %v; want 0 and given back", got.Paid, got.Settled)
		}
		synctest.Wait()
		timer := time.NewTimer(time.Second)
		<-timer.C
		if o := agent.Offer(); o.Free != o.Total {
			t.Errorf("free %+v of %+v", o.Free, o.Total)
		}
	})
}

func TestStop(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "trap", "0")
		lease := w.lease(agent, ask)
		ended := make(chan *executor.Outcome, 1)
		go func() { ended <- (&client{w: w}).run(w.task(ask, lease.ID)) }()
		timer := time.NewTimer(10 * time.Second)
		<-timer.C
		stranger := executor.StopAsk{
			From: executor.Peer{Account: sig.AccountID{66}}, Job: ask.Job, Attempt: ask.Attempt,
		}
		if err := agent.Stop(t.Context(), stranger); !errors.Is(err, executor.ErrNotYours) {
			t.Errorf("a stranger's stop: %v", err)
		}
		other := stranger
		other.From = executor.Peer{Instance: key(9).Public(), Operator: w.asker.Operator}
		if err := agent.Stop(t.Context(), other); !errors.Is(err, executor.ErrNotYours) {
			t.Errorf("another scheduler's stop: %v", err)
		}
		mine := stranger
		mine.From, mine.Reason, mine.Grace = w.asker, "enough", time.Second
		for range 2 {
			if err := agent.Stop(t.Context(), mine); err != nil {
				t.Fatal(err)
			}
		}
		o := <-ended
		if o.Reason != executor.EndCancelled || o.Message != "cancelled: enough" || o.Amount == 0 {
			t.Errorf("outcome %+v", o)
		}
		w.closed(ask.Attempt)
		if err := agent.Stop(t.Context(), mine); err != nil {
			t.Errorf("stop of what has ended: %v", err)
		}
	})
}

// TestLeaseEndedOnTheChain ends the lease behind the executor's back.
func TestLeaseEndedOnTheChain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "use", "1000", "forever")
		lease := w.lease(agent, ask)
		ended := make(chan *executor.Outcome, 1)
		go func() { ended <- (&client{w: w}).run(w.task(ask, lease.ID)) }()
		timer := time.NewTimer(90 * time.Second)
		<-timer.C
		w.ledger.End(lease.ID)
		o := <-ended
		if o.Reason != executor.EndCancelled || !strings.Contains(o.Message, "ended on the chain") {
			t.Errorf("outcome %+v", o)
		}
		if ran := time.Since(w.ledger.Read(lease.ID).From); ran > 135*time.Second {
			t.Errorf("it ended %v after the start of a lease of 90 s", ran)
		}
		w.closed(ask.Attempt)
		w.checkPaidUntil(o, lease.ID, w.cfg.NoteEvery+w.cfg.Tick)
	})
}

func TestLogsAreTheOwners(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "lines", "3", "sleep", "5s", "out", "last")
		lease := w.lease(agent, ask)
		ended := make(chan *executor.Outcome, 1)
		go func() { ended <- (&client{w: w}).run(w.task(ask, lease.ID)) }()
		timer := time.NewTimer(time.Second)
		<-timer.C
		var lines []string
		var offset uint64
		read := func(from executor.Peer, follow bool) error {
			return agent.Logs(t.Context(), executor.LogsAsk{
				From: from, Job: ask.Job, Offset: offset, Follow: follow,
			}, func(c executor.LogChunk) error {
				for _, line := range c.Lines {
					lines = append(lines, string(line.Text))
				}
				offset = c.Next
				return nil
			})
		}
		for _, from := range []executor.Peer{w.asker, {Account: sig.AccountID{66}}, {}} {
			if err := read(from, false); !errors.Is(err, executor.ErrNotYours) {
				t.Errorf("log for %+v: %v", from, err)
			}
		}
		for _, follow := range []bool{false, true} {
			if err := read(w.owner, follow); err != nil {
				t.Fatal(err)
			}
		}
		if want := []string{"line 0", "line 1", "line 2", "last"}; !slices.Equal(lines, want) {
			t.Errorf("log %q, want %q", lines, want)
		}
		<-ended
	})
}

func TestForgedAcknowledge(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "use", "1000", "sleep", "10s")
		lease := w.lease(agent, ask)
		c := &client{w: w, away: true}
		ended := make(chan *executor.Outcome, 1)
		go func() { ended <- c.run(w.task(ask, lease.ID)) }()
		timer := time.NewTimer(7 * time.Second)
		<-timer.C
		c.mu.Lock()
		note := c.notes[len(c.notes)-1].Note.Note
		c.mu.Unlock()
		good := w.sign(note)
		forged := map[string]func(a *executor.Ack){
			"signature":   func(a *executor.Ack) { a.Signature[3] ^= 1 },
			"no such key": func(a *executor.Ack) { a.Index = 1 },
			"more money":  func(a *executor.Ack) { a.Note.Cumulative++; *a = w.sign(a.Note) },
			"other usage": func(a *executor.Ack) { a.Note.UsageHash[0] ^= 1; *a = w.sign(a.Note) },
			"own key": func(a *executor.Ack) {
				a.Signature = w.id.Key.Sign(note.TX().AckPreimage(w.anchor))
			},
			"wrong domain": func(a *executor.Ack) {
				a.Signature = w.ackKey.Sign(note.TX().Preimage(w.anchor))
			},
		}
		for name, spoil := range forged {
			ack := good
			spoil(&ack)
			if err := agent.Acknowledge(t.Context(), lease.ID, ack); !errors.Is(err,
				executor.ReasonForgedAck) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if r := w.journal.Record(ask.Attempt); r.Ack != nil {
			t.Errorf("a forged countersignature was kept: %+v", r.Ack)
		}
		for range 2 {
			if err := agent.Acknowledge(t.Context(), lease.ID, good); err != nil {
				t.Errorf("the good one: %v", err)
			}
		}
		if err := agent.Acknowledge(t.Context(), executor.LeaseID{1}, good); !errors.Is(err,
			executor.ErrNoAttempt) {
			t.Errorf("another lease: %v", err)
		}
		<-ended
	})
}

// TestGracefulStopLeavesContainers stops the executor in the midst and goes on in the next life.
func TestGracefulStopLeavesContainers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "use", "1000", "sleep", "40s", "out", "done")
		lease := w.lease(agent, ask)
		c := &client{w: w}
		ended := make(chan *executor.Outcome, 1)
		go func() { ended <- c.run(w.task(ask, lease.ID)) }()
		timer := time.NewTimer(12 * time.Second)
		<-timer.C
		w.stop()
		timer.Reset(15 * time.Second)
		<-timer.C
		w.start()
		o := <-ended
		if o.Reason != executor.EndCompleted || o.Usage.WallMS != 40_000 ||
			o.Usage.CPUNS != uint64(40*time.Second) {
			t.Errorf("outcome %+v", o)
		}
		w.closed(ask.Attempt)
		if paid := w.ledger.Read(lease.ID).Paid; paid != o.Amount {
			t.Errorf("paid %d, want %d", paid, o.Amount)
		}
	})
}
