package server

import (
	"context"
	"net/http"
	"time"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	"github.com/united-containers/ucn/services/gateway"
)

const (
	methodStats = "executor.v1/Stats"
	// How often a stream of stats reads; each reading costs the host a measurement.
	statsEvery    = 2 * time.Second
	minStatsEvery = 500 * time.Millisecond
	maxStatsEvery = time.Minute
	statsWait     = 10 * time.Second // for one reading
)

// statsAsk is a request for what an attempt uses.
type statsAsk struct {
	hostAsk
	every time.Duration
}

// stats serves GET /v1/jobs/{job}/stats?attempt=&interval=: one reading as JSON, or with Accept:
// text/event-stream an event "stats" every interval, then "end" when the attempt has ended.
func (s *Server) stats(w http.ResponseWriter, r *http.Request, job [32]byte) error {
	ask, err := s.statsAskOf(r, job)
	if err != nil {
		return err
	}
	if !wantsEvents(r) {
		return ask.once(w, r)
	}
	stream, end, err := s.beginStream(w, r, "")
	if err != nil {
		return err
	}
	defer end()
	return s.serveEvents(w, stream, ask.run)
}

func (s *Server) statsAskOf(r *http.Request, job [32]byte) (*statsAsk, error) {
	asked, err := s.hostAskOf(r, job)
	if err != nil {
		return nil, err
	}
	ask := &statsAsk{hostAsk: asked, every: statsEvery}
	if text := r.URL.Query().Get("interval"); text != "" {
		ask.every, err = time.ParseDuration(text)
		if err != nil || ask.every < minStatsEvery || ask.every > maxStatsEvery {
			return nil, fault.New(fault.InvalidArgument, gateway.ReasonRequest,
				"interval is a time from %v to %v, such as 2s", minStatsEvery, maxStatsEvery)
		}
	}
	return ask, nil
}

func (a *statsAsk) once(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), a.server.cfg.MaxTime)
	defer cancel()
	read, _, err := a.reader(ctx, false)
	if err != nil {
		return err
	}
	answer, err := read(ctx)
	if err != nil {
		return err
	}
	raw, err := data(answer)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(raw)
	a.server.wrote(r, err)
	return nil
}

// run tells readings until the attempt has ended.
func (a *statsAsk) run(ctx context.Context, tell func(event) error) error {
	read, until, err := a.reader(ctx, true)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithDeadlineCause(ctx, until, tokenExpired())
	defer cancel()
	for {
		answer, err := read(ctx)
		if err != nil {
			return err
		}
		one := event{name: "stats"}
		if one.data, err = data(answer); err != nil {
			return err
		}
		if err := tell(one); err != nil {
			return err
		}
		if answer.GetState() == jobv1.State_STATE_ENDED {
			return tell(event{name: "end",
				data: map[string]string{"attempt": attemptText(answer.GetAttempt())}})
		}
		timer := time.NewTimer(a.every)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// readStats takes one reading.
type readStats func(context.Context) (*executorv1.StatsResponse, error)

// reader finds the attempt and its host, once for all readings, and for how long they may be taken.
func (a *statsAsk) reader(ctx context.Context, wait bool) (readStats, time.Time, error) {
	at, err := a.find(ctx, wait)
	if err != nil {
		return nil, time.Time{}, err
	}
	if at.GetExecutor() == nil {
		return nil, time.Time{}, fault.New(fault.NotFound, gateway.ReasonNoAttempt,
			"the attempt was never on a host")
	}
	target, err := a.server.executor(ctx, at.GetExecutor())
	if err != nil {
		return nil, time.Time{}, err
	}
	by, err := a.asker(ctx, target)
	if err != nil {
		return nil, time.Time{}, err
	}
	request := &executorv1.StatsRequest{
		Job: a.job[:], Attempt: at.GetId(), Account: by.account,
	}
	return func(whole context.Context) (*executorv1.StatsResponse, error) {
		ctx, cancel := context.WithTimeout(whole, statsWait)
		defer cancel()
		answer := &executorv1.StatsResponse{}
		err := by.client.Call(ctx, target, methodStats, request, answer)
		switch {
		case err == nil:
			return answer, nil
		case whole.Err() != nil:
			return nil, context.Cause(whole)
		case fault.KindOf(err) == fault.DeadlineExceeded:
			return nil, fault.New(fault.Unavailable, rpc.ReasonUnavailable,
				"the host of this attempt does not answer: try again").Because(err)
		}
		return nil, forOtherOperator(err, target)
	}, by.until, nil
}
