package executor_test

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/rpc"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/server"
)

// misset has the executor's clock be off by what it returns.
func (w *world) misset(by time.Duration) *atomic.Int64 {
	off := &atomic.Int64{}
	off.Store(int64(by))
	w.now = func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
	return off
}

// show is what the operator is shown.
func (w *world) show(agent *executor.Agent) *executorv1.GetHostResponse {
	w.t.Helper()
	encoder, err := server.NewEncoder(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	s := server.New(server.Deps{
		Agent: agent, Encoder: encoder, Operator: w.id.Operator, Instance: w.id.Key.Public(),
	})
	host, err := s.GetHost(rpc.WithCaller(w.t.Context(), rpc.Caller{
		Account: w.id.Operator, Scopes: []string{"admin"},
	}), &executorv1.GetHostRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	return host
}

// TestWrongClockTakesNothing: a host whose clock is far from the chain's declines, says so in its
// offers and to its operator, and takes work again once the clock is right.
func TestWrongClockTakesNothing(t *testing.T) {
	for by, says := range map[time.Duration]string{
		72 * time.Hour:           "72h0m0s ahead of the chain's",
		-72 * time.Hour:          "72h0m0s behind the chain's",
		11 * time.Minute:         "11m0s ahead of",
		-11 * time.Minute:        "11m0s behind",
		-20*365*24*time.Hour - 1: "behind the chain's",
	} {
		t.Run(by.String(), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				off := w.misset(by)
				agent := w.start()
				ask := w.ask(1, "sleep", "1m")
				answer, err := agent.Ask(t.Context(), ask)
				no := answer.Declined
				if err != nil || no == nil || no.Code != executor.DeclineClock ||
					!strings.Contains(no.Message, says) {
					t.Fatalf("it answers %+v, %v", no, err)
				}
				if list := agent.Warnings(); len(list) != 1 || list[0] != no.Message {
					t.Errorf("warnings %q", list)
				}
				if host := w.show(agent); len(host.GetWarnings()) != 1 || host.GetDraining() ||
					time.Duration(host.GetClockAheadMs()).Round(1000)*time.Millisecond !=
						by.Round(time.Second) {
					t.Errorf("the operator is shown %v", host)
				}
				if !agent.Offer().Draining || agent.ClockAhead().Round(time.Second) != by.Round(time.Second) {
					t.Errorf("offer %+v, ahead by %v", agent.Offer(), agent.ClockAhead())
				}
				off.Store(0)
				pass(2 * time.Minute)
				ask = w.ask(2, "sleep", "1m")
				lease := w.lease(agent, ask)
				o := (&client{w: w}).run(w.task(ask, lease.ID))
				if o.Reason != executor.EndCompleted || agent.Offer().Draining || len(agent.Warnings()) != 0 {
					t.Errorf("outcome %+v, offer %+v, warnings %q", o, agent.Offer(), agent.Warnings())
				}
			})
		})
	}
}

// TestSlightlyWrongClockIsTold: and keeps nobody from working.
func TestSlightlyWrongClockIsTold(t *testing.T) {
	for _, by := range []time.Duration{5 * time.Minute, -5 * time.Minute} {
		inWorld(t, func(t *testing.T, w *world) {
			w.misset(by)
			agent := w.start()
			ask := w.ask(1, "sleep", "1m")
			lease := w.lease(agent, ask)
			o := (&client{w: w}).run(w.task(ask, lease.ID))
			list := agent.Warnings()
			if o.Reason != executor.EndCompleted || len(list) != 1 || !strings.Contains(list[0], "5m0s") ||
				agent.Offer().Draining {
				t.Errorf("outcome %+v, warnings %q", o, list)
			}
		})
	}
}

// TestWrongClockGoesWrongInTheMidst: it drifts away, or is set with nothing to keep it steady.
func TestWrongClockGoesWrongInTheMidst(t *testing.T) {
	for _, by := range []time.Duration{72 * time.Hour, -72 * time.Hour} {
		inWorld(t, func(t *testing.T, w *world) {
			off := w.misset(0)
			agent := w.start()
			pass(time.Minute)
			off.Store(int64(by))
			pass(2 * time.Minute)
			answer, err := agent.Ask(t.Context(), w.ask(1, "sleep", "1m"))
			if err != nil || answer.Declined == nil || answer.Declined.Code != executor.DeclineClock {
				t.Errorf("it answers %+v, %v", answer, err)
			}
		})
	}
}

// TestWrongClockEndsNothing: a host comes back with a clock that is days off, and perhaps with
// nobody to ask for the time. What runs goes on to its end, and its time is paid once.
func TestWrongClockEndsNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		by   time.Duration
		away time.Duration // for how long the chain cannot be asked
		fix  bool
	}{
		"days ahead":                      {by: 72 * time.Hour},
		"days behind":                     {by: -72 * time.Hour},
		"days ahead, mended":              {by: 72 * time.Hour, fix: true},
		"days behind, mended":             {by: -72 * time.Hour, fix: true},
		"days ahead, nobody to ask":       {by: 72 * time.Hour, away: 5 * time.Minute},
		"days behind, nobody to ask":      {by: -72 * time.Hour, away: 5 * time.Minute},
		"hours behind, nobody to ask":     {by: -3 * time.Hour, away: 5 * time.Minute},
		"ahead, nobody to ask, mended":    {by: 72 * time.Hour, away: 5 * time.Minute, fix: true},
		"right, and nobody to ask at all": {away: 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				off := w.misset(0)
				agent := w.start()
				ask := w.ask(1, "use", "1000", "sleep", "30m")
				ask.Terms.Budget, ask.Terms.Trust = 10*ucn, 10*ucn
				ask.Terms.Until = uint64(time.Now().Add(time.Hour).UnixMilli())
				lease := w.lease(agent, ask)
				c, ended := &client{w: w}, make(chan *executor.Outcome, 1)
				go func() { ended <- c.run(w.task(ask, lease.ID)) }()
				pass(5 * time.Minute)
				w.kill()
				off.Store(int64(tt.by))
				var away atomic.Bool
				away.Store(tt.away > 0)
				w.ledger.SetHook(func(string) (error, error) {
					if away.Load() {
						return errors.New("the ledger is away"), nil
					}
					return w.killed(), nil
				})
				w.start()
				pass(tt.away)
				away.Store(false)
				pass(10 * time.Minute)
				if tt.fix {
					off.Store(0)
				}
				o := <-ended
				w.closed(ask.Attempt)
				got := w.ledger.Read(lease.ID)
				if o.Reason != executor.EndCompleted || got.Paid != o.Amount || !got.Settled {
					t.Errorf("outcome %+v, lease %+v", o, got)
				}
				if ran := (30 * time.Minute).Milliseconds(); o.Usage.WallMS != uint64(ran) {
					t.Errorf("%d ms are asked for, it ran %d", o.Usage.WallMS, ran)
				}
			})
		})
	}
}

// TestNobodyToAskForever: where the chain stays away a lease ends by the own clock all the same.
func TestNobodyToAskForever(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := w.start()
		ask := w.ask(1, "forever")
		ask.Terms.Until = uint64(time.Now().Add(5 * time.Minute).UnixMilli())
		lease := w.lease(agent, ask)
		c, ended := &client{w: w}, make(chan *executor.Outcome, 1)
		go func() { ended <- c.run(w.task(ask, lease.ID)) }()
		pass(time.Minute)
		w.kill()
		var away atomic.Bool
		away.Store(true)
		w.ledger.SetHook(func(string) (error, error) {
			if away.Load() {
				return errors.New("the ledger is away"), nil
			}
			return w.killed(), nil
		})
		w.start()
		pass(15 * time.Minute)
		if w.running(ask.Attempt) {
			t.Error("it runs on, ten minutes after its lease")
		}
		away.Store(false)
		o := <-ended
		w.closed(ask.Attempt)
		got := w.ledger.Read(lease.ID)
		if o.Reason != executor.EndExpired || o.Usage.WallMS > 300_000 || got.Paid != o.Amount {
			t.Errorf("outcome %+v, lease %+v", o, got)
		}
	})
}

// TestWarnsOfMissingAccounts: of whom is paid, and of who pays the fees.
func TestWarnsOfMissingAccounts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ledger.Lock(ucn)
		agent := w.start()
		list := agent.Warnings()
		if len(list) != 2 || !strings.Contains(list[0], "the payee ucn1") ||
			!strings.Contains(list[0], "no account on chain main") ||
			!strings.Contains(list[1], "instance, ucn1") || !strings.Contains(list[1], "fees") {
			t.Fatalf("warnings %q", list)
		}
		if no := agent.Offer().Draining; no {
			t.Error("it takes no work")
		}
		if host := w.show(agent); !slices.Equal(host.GetWarnings(), list) || host.GetClockAheadMs() != 0 {
			t.Errorf("the operator is shown %v", host)
		}
		w.ledger.Lock(0)
		pass(2 * time.Minute)
		if list := agent.Warnings(); len(list) != 0 {
			t.Errorf("with accounts: %q", list)
		}
		w.ledger.Lock(ucn)
		pass(11 * time.Minute)
		w.ledger.SetHook(func(string) (error, error) { return errors.New("the ledger is away"), nil })
		pass(time.Hour)
		if list := agent.Warnings(); len(list) != 2 {
			t.Errorf("without, and nobody to ask: %q", list)
		}
	})
}
