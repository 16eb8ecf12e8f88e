package executor_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

// program makes the guest of the world's host f.
func (w *world) program(f fake.Program) {
	w.host = fake.NewHost(fake.Options{
		AnyImage: true, Hook: w.driverHook, Programs: map[string]fake.Program{"/guest": f},
	})
}

// runHostile runs a job whose program is f.
func runHostile(t *testing.T, w *world, f fake.Program) *executor.Outcome {
	t.Helper()
	w.program(f)
	agent := w.start()
	ask := w.ask(1)
	lease := w.lease(agent, ask)
	o := (&client{w: w}).run(w.task(ask, lease.ID))
	w.closed(ask.Attempt)
	return o
}

// TestOutputWithAnOddName: names are bytes to the kernel, and text to everyone else. One that is no
// text must not keep the attempt from ending.
func TestOutputWithAnOddName(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		o := runHostile(t, w, func(p *fake.Process) int {
			for _, name := range []string{"/out/\xff\xfe", "/out/good", "/out/a\nb"} {
				if err := p.Write(name, []byte("x")); err != nil {
					return 1
				}
			}
			return 0
		})
		if o.Reason != executor.EndCompleted || len(o.Outputs) == 0 {
			t.Errorf("outcome %+v", o)
		}
		if strings.Contains(o.Message, "\n") || !utf8.ValidString(o.Message) {
			t.Errorf("message %q", o.Message)
		}
	})
}

// TestDeepOutputs: a tree of a program's making cannot use the executor's memory and time up.
func TestDeepOutputs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		o := runHostile(t, w, func(p *fake.Process) int {
			name := "/out" + strings.Repeat("/"+strings.Repeat("d", 200), 1000) + "/deep"
			if p.Write(name, []byte("x")) != nil || p.Write("/out/zz", []byte("y")) != nil {
				return 1
			}
			return 0
		})
		if len(o.Outputs) != 1 || o.Outputs[0].Path != "/out/zz" {
			t.Errorf("outputs %+v", len(o.Outputs))
		}
		if !strings.Contains(o.Message, "deep") || len(o.Message) > 4<<10 {
			t.Errorf("message of %d bytes: %.300q", len(o.Message), o.Message)
		}
	})
}

// TestStopGraceIsPaid: an owner who cancels with a long grace gets no more of it than is paid for.
func TestStopGraceIsPaid(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.MinTrust, w.cfg.StopGrace = time.Second, time.Second
		agent := w.start()
		ask := w.ask(1, "use", "1000", "deaf")
		ask.Terms.Trust = 1_010_000_000 / 3600 * 10 // ten seconds of rate
		lease := w.lease(agent, ask)
		done := make(chan *executor.Outcome, 1)
		go func() { done <- (&client{w: w, away: true}).run(w.task(ask, lease.ID)) }()
		timer := time.NewTimer(2 * time.Second)
		<-timer.C
		if err := agent.Stop(t.Context(), executor.StopAsk{
			From: w.owner, Job: ask.Job, Attempt: ask.Attempt, Grace: executor.MaxStopAsk,
		}); err != nil {
			t.Fatal(err)
		}
		o := <-done
		if o.Reason != executor.EndCancelled {
			t.Errorf("outcome %+v", o)
		}
		if ran := time.Duration(o.Usage.WallMS) * time.Millisecond; ran > 15*time.Second {
			t.Errorf("it ran for %v on a trust of ten seconds", ran)
		}
	})
}

// TestJoinKeepsSecretsAndToken: whoever joins without them takes nothing away.
func TestJoinKeepsSecretsAndToken(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.program(func(p *fake.Process) int {
			p.Print(executor.Stdout, strings.Join(p.Env, " "))
			return 0
		})
		agent := w.start()
		ask := w.ask(1)
		ask.Spec.Secrets = []string{"API_KEY"}
		answer, err := agent.Ask(t.Context(), ask)
		if err != nil || answer.Lease == nil {
			t.Fatalf("%+v, %v", answer, err)
		}
		task := w.task(ask, answer.Lease.ID)
		task.Secrets = map[string]string{"API_KEY": "s3cret"}
		c := &client{w: w}
		done := make(chan *executor.Outcome, 2)
		go func() { done <- c.run(task) }()
		timer := time.NewTimer(time.Second)
		<-timer.C
		bare := task
		bare.Secrets, bare.StorageToken, bare.From = nil, "", w.asker
		go func() { done <- (&client{w: w, away: true}).run(bare) }()
		timer = time.NewTimer(time.Second)
		<-timer.C
		if err := w.ledger.Place(*answer.Lease); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if o := <-done; o.Reason != executor.EndCompleted {
				t.Errorf("outcome %+v", o)
			}
		}
		if r := w.journal.Record(ask.Attempt); strings.Join(c.lines, "") != "API_KEY=s3cret" {
			t.Errorf("the program saw %q; %+v", c.lines, r.Outcome)
		}
	})
}

// TestUncountedDiskIsStopped: a program that makes more files than can be measured is not left to
// write as much as it likes.
func TestUncountedDiskIsStopped(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		o := runHostile(t, w, func(p *fake.Process) int {
			p.Uncounted()
			p.Sleep(time.Hour)
			return 0
		})
		if o.Reason != executor.EndFailed || !strings.Contains(o.Message, "more files") {
			t.Errorf("outcome %+v", o)
		}
	})
}

// TestWatchersAreBounded: one attempt's owner cannot take every stream of the host.
func TestWatchersAreBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "sleep", "10s")
		lease := w.lease(agent, ask)
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 20)
		for range cap(results) {
			go func() {
				results <- agent.Task(ctx, w.task(ask, lease.ID), func(executor.Update) error {
					<-ctx.Done() // as slow as a reader can be
					return ctx.Err()
				})
			}()
		}
		refused := 0
		for range cap(results) - 8 {
			if err := <-results; errors.Is(err, executor.ErrStreams) {
				refused++
			}
		}
		cancel()
		for range 8 {
			<-results
		}
		if refused != cap(results)-8 {
			t.Errorf("%d of %d streams were refused", refused, cap(results))
		}
		if o := (&client{w: w}).run(w.task(ask, lease.ID)); o.Reason != executor.EndCompleted {
			t.Errorf("outcome %+v", o)
		}
	})
}

// TestSchedulerSeesNoLog: what a program prints is for its owner.
func TestSchedulerSeesNoLog(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "out", "private", "sleep", "1s")
		lease := w.lease(agent, ask)
		task := w.task(ask, lease.ID)
		task.From = w.asker
		c := &client{w: w}
		if o := c.run(task); o.Reason != executor.EndCompleted || len(c.lines) != 0 {
			t.Errorf("outcome %+v, the scheduler read %q", o, c.lines)
		}
	})
}

// storage is what the executor fetches from.
func (w *world) storage() executor.Files {
	if w.hang {
		return hanging{w.files}
	}
	if w.gates != nil {
		return gated{w.files, w.gates}
	}
	return w.files
}

// hanging is a storage that takes calls for inputs and never answers.
type hanging struct{ executor.Files }

func (hanging) FetchInput(
	ctx context.Context, _ executor.FileAccess, _ executor.FetchInput,
) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

// TestHangingStorage: a storage that never answers does not hold the host for longer than a start
// may take, and costs nothing.
func TestHangingStorage(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hang = true
		agent := w.start()
		ask := w.ask(1, "exit", "0")
		ask.Spec.Inputs = []executor.Input{{CID: image, Path: "/in"}}
		lease := w.lease(agent, ask)
		o := (&client{w: w}).run(w.task(ask, lease.ID))
		if o.Reason != executor.EndRefused || o.Amount != 0 {
			t.Errorf("outcome %+v", o)
		}
		w.closed(ask.Attempt)
	})
}

// TestWithheldTokenHoldsNoCores: a program that is over holds no cores and memory while its outputs
// wait for a token that storage takes.
func TestWithheldTokenHoldsNoCores(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.files.Deny("token")
		agent := w.start()
		ask := w.ask(1, "write", "/out/a", "x", "exit", "0")
		lease := w.lease(agent, ask)
		done := make(chan *executor.Outcome, 1)
		go func() { done <- (&client{w: w}).run(w.task(ask, lease.ID)) }()
		timer := time.NewTimer(time.Minute)
		<-timer.C
		if f := agent.Offer(); f.Free.CPUMilli != f.Total.CPUMilli || f.Free.Memory != f.Total.Memory {
			t.Errorf("free %+v of %+v", f.Free, f.Total)
		}
		<-done
		w.closed(ask.Attempt)
		timer = time.NewTimer(time.Minute)
		<-timer.C
		if f := agent.Offer(); f.Free != f.Total {
			t.Errorf("at the end free %+v of %+v", f.Free, f.Total)
		}
	})
}

// TestRefusedNoteIsCountersigned: the note of an attempt that never ran says that nothing is due,
// and its countersignature is no forgery.
func TestRefusedNoteIsCountersigned(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.host = fake.NewHost(fake.Options{Hook: w.driverHook})
		agent := w.start()
		ask := w.ask(1, "exit", "0") // its image is nowhere
		lease := w.lease(agent, ask)
		w.ledger.SetHook(func(op string) (error, error) {
			if op == "Charge" { // so that the attempt stays
				return errors.New("away"), nil
			}
			return w.killed(), nil
		})
		c := &client{w: w, away: true}
		if o := c.run(w.task(ask, lease.ID)); o.Reason != executor.EndRefused {
			t.Fatalf("outcome %+v", o)
		}
		if len(c.notes) == 0 {
			t.Fatal("no note came")
		}
		last := c.notes[len(c.notes)-1].Note.Note
		if err := agent.Acknowledge(t.Context(), lease.ID, w.sign(last)); err != nil ||
			last.Cumulative != 0 {
			t.Errorf("the note of %d grains: %v", last.Cumulative, err)
		}
		w.ledger.SetHook(func(string) (error, error) { return w.killed(), nil })
		w.closed(ask.Attempt)
		if got := w.ledger.Read(lease.ID); got.Paid != 0 {
			t.Errorf("paid %d", got.Paid)
		}
	})
}
