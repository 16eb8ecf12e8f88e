package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/gateway"
)

const (
	executorService = "executor"
	methodLogs      = "executor.v1/Logs"
	// settleTime is how long the outcome of an attempt, with its stored log, may take to reach the
	// scheduler after the host let go of the log.
	settleTime = 30 * time.Second
)

// Reasons of an executor that its log is elsewhere, or of the bus that it cannot be asked.
const (
	reasonLogGone   fault.Reason = "LOG_GONE"
	reasonNoAttempt fault.Reason = "NO_ATTEMPT"
)

// logAsk is a request for a log.
type logAsk struct {
	hostAsk
	follow bool
	cursor gateway.Cursor
}

// logs serves GET /v1/jobs/{job}/logs?attempt=&follow=&offset= as events: "log" with lines, "end"
// when there are no more, "error" when the stream broke. The id of a log event is a cursor.
func (s *Server) logs(w http.ResponseWriter, r *http.Request, job [32]byte) error {
	if r.Method != http.MethodGet {
		return methodNotAllowed(r)
	}
	ask, err := s.logAskOf(r, job)
	if err != nil {
		return err
	}
	if ask.cursor.End { // an EventSource connects again after the end; this stops it
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	stream, end, err := s.beginStream(w, r, "")
	if err != nil {
		return err
	}
	defer end()
	return s.serveEvents(w, stream, ask.run)
}

func (s *Server) logAskOf(r *http.Request, job [32]byte) (*logAsk, error) {
	asked, err := s.hostAskOf(r, job)
	if err != nil {
		return nil, err
	}
	query := r.URL.Query()
	ask := &logAsk{hostAsk: asked, cursor: gateway.Start()}
	switch query.Get("follow") {
	case "", "0", "false":
	case "1", "true":
		ask.follow = true
	default:
		return nil, fault.New(fault.InvalidArgument, gateway.ReasonRequest,
			"follow is \"true\" or \"false\"")
	}
	place := r.Header.Get("Last-Event-ID") // newer than the address, which never changes
	if place == "" {
		place = query.Get("offset")
	}
	if place != "" {
		if ask.cursor, err = gateway.ParseCursor(place); err != nil {
			return nil, err
		}
	}
	return ask, nil
}

// run tells the log: from the host while it has it, else from storage.
func (a *logAsk) run(ctx context.Context, tell func(event) error) error {
	attempt, err := a.find(ctx, a.follow)
	if err != nil {
		return err
	}
	if a.cursor.Stored && !ended(attempt) {
		return fault.New(fault.InvalidArgument, gateway.ReasonRequest,
			"the attempt has no stored log yet: begin anew without an offset")
	}
	if attempt.GetStatus().GetOutcome().GetLogCid() == "" && !a.cursor.Stored {
		err := a.live(ctx, attempt, tell)
		if err == nil {
			return a.end(attempt, tell)
		}
		if attempt, err = a.afterLive(ctx, attempt, err); err != nil {
			return err
		}
	}
	if err := a.stored(ctx, attempt, tell); err != nil {
		return err
	}
	return a.end(attempt, tell)
}

// end says that there is no more. Whoever followed has everything.
func (a *logAsk) end(attempt *schedulerv1.Attempt, tell func(event) error) error {
	done := event{name: "end", data: map[string]string{"attempt": attemptText(attempt.GetId())}}
	if a.follow || a.cursor.Stored {
		done.id = gateway.Cursor{End: true}.String()
	}
	return tell(done)
}

// afterLive finds what became of an attempt whose host does not tell the log. cause is why.
func (a *logAsk) afterLive(
	ctx context.Context, at *schedulerv1.Attempt, cause error,
) (*schedulerv1.Attempt, error) {
	a.attempt = at.GetId() // a newer one is another log
	gone := errors.Is(cause, reasonLogGone)
	if !gone && !errors.Is(cause, reasonNoAttempt) && fault.KindOf(cause) != fault.Unavailable {
		return nil, cause
	}
	if gone {
		ctx, cancel := context.WithTimeout(ctx, settleTime)
		defer cancel()
		if at, err := a.await(ctx, ended); err == nil || ctx.Err() == nil {
			return at, err
		}
		return nil, cause
	}
	got, err := a.server.scheduler.GetJob(ctx, &schedulerv1.GetJobRequest{Job: a.job[:]})
	if err != nil {
		return nil, err
	}
	if at = attemptOf(got.GetJob(), a.attempt); at != nil && ended(at) {
		return at, nil
	}
	return nil, cause
}

// live reads the log from the executor, over the bus.
func (a *logAsk) live(
	ctx context.Context, at *schedulerv1.Attempt, tell func(event) error,
) error {
	target, err := a.server.executor(ctx, at.GetExecutor())
	if err != nil {
		return err
	}
	request := &executorv1.LogsRequest{
		Job: a.job[:], Attempt: at.GetId(), Offset: a.cursor.Offset, Follow: a.follow,
	}
	by, err := a.asker(ctx, target)
	if err != nil {
		return err
	}
	request.Account = by.account
	ctx, cancel := context.WithDeadlineCause(ctx, by.until, tokenExpired())
	defer cancel()
	replies, err := by.client.Stream(ctx, target, methodLogs, request, bus.ForJob(a.job))
	if err != nil {
		return err
	}
	defer replies.Close()
	for chunk, err := range bus.Replies[*executorv1.LogChunk](replies) {
		if err != nil && errors.Is(context.Cause(ctx), rpc.ReasonTokenExpired) {
			return context.Cause(ctx)
		}
		if err != nil {
			return forOtherOperator(err, target)
		}
		a.cursor = a.cursor.Read(chunk.GetNextOffset(), len(chunk.GetLines()))
		if err := tell(a.event(linesOf(chunk))); err != nil {
			return err
		}
	}
	return nil
}

// line is a line of a log, as in the stored log: text, or bytes where it is not UTF-8.
type line struct {
	Time    int64  `json:"time"`
	Stream  string `json:"stream"`
	Text    string `json:"text"`
	Bytes   []byte `json:"bytes,omitempty"`
	Partial bool   `json:"partial,omitempty"`
	Gap     bool   `json:"gap,omitempty"`
}

// lines is the data of an event "log".
type lines struct {
	NextOffset string `json:"next_offset"`
	Lines      []line `json:"lines"`
}

func (a *logAsk) event(of []line) event {
	text := a.cursor.String()
	return event{name: "log", id: text, data: lines{NextOffset: text, Lines: of}}
}

func linesOf(chunk *executorv1.LogChunk) []line {
	out := make([]line, len(chunk.GetLines()))
	for i, l := range chunk.GetLines() {
		out[i] = line{
			Time:    int64(l.GetTime()),
			Stream:  strings.ToLower(strings.TrimPrefix(l.GetStream().String(), "STREAM_")),
			Partial: l.GetPartial(),
		}
		if utf8.Valid(l.GetText()) {
			out[i].Text = string(l.GetText())
		} else {
			out[i].Bytes = l.GetText()
		}
	}
	return out
}
