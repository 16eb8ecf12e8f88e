package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/rpc"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/gateway"
)

const (
	executorService = "executor"
	methodLogs      = "executor.v1/Logs"
	// executorTokenHeader carries the token for a host whose operator is not the gateway's: tokens
	// name the operator that they are for. No host ever sees the ordinary token.
	executorTokenHeader = "Ucn-Executor-Token"
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
	server  *Server
	job     [32]byte
	attempt []byte // empty: the newest
	follow  bool
	cursor  gateway.Cursor
	token   string // the caller's
	other   string // for a host of another operator
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
	give, err := s.streams.take(r, "streams")
	if err != nil {
		return err
	}
	defer give()
	ctx, cancel := s.untilDrain(r.Context())
	defer cancel()
	return s.serveEvents(w, r.WithContext(ctx), ask.run)
}

func (s *Server) logAskOf(r *http.Request, job [32]byte) (*logAsk, error) {
	query := r.URL.Query()
	ask := &logAsk{server: s, job: job, cursor: gateway.Start()}
	var err error
	switch query.Get("follow") {
	case "", "0", "false":
	case "1", "true":
		ask.follow = true
	default:
		return nil, fault.New(fault.InvalidArgument, gateway.ReasonRequest,
			"follow is \"true\" or \"false\"")
	}
	if text := query.Get("attempt"); text != "" {
		if ask.attempt, err = gateway.ParseShortID(text); err != nil {
			return nil, err
		}
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
	if ask.token, err = bearerToken(r.Header); err != nil {
		return nil, err
	}
	if values := r.Header.Values(executorTokenHeader); len(values) > 0 {
		ask.other, err = tokenOf([]string{bearer + strings.Join(values, ",")})
	}
	return ask, err
}

// run tells the log: from the host while it has it, else from storage.
func (a *logAsk) run(ctx context.Context, tell func(event) error) error {
	attempt, err := a.find(ctx)
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

// find returns the attempt that is asked for, and waits for it if the log is followed.
func (a *logAsk) find(ctx context.Context) (*schedulerv1.Attempt, error) {
	got, err := a.server.scheduler.GetJob(ctx, &schedulerv1.GetJobRequest{Job: a.job[:]})
	if err != nil {
		return nil, err
	}
	attempt := attemptOf(got.GetJob(), a.attempt)
	if attempt.GetExecutor() != nil || attempt != nil && ended(attempt) {
		return attempt, nil
	}
	if !a.follow || got.GetJob().GetState() == jobv1.State_STATE_ENDED {
		return nil, fault.New(fault.NotFound, gateway.ReasonNoAttempt,
			"the job has no such attempt on a host: follow=true waits for one")
	}
	return a.await(ctx, func(at *schedulerv1.Attempt) bool { return at.GetExecutor() != nil })
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

// await watches the job until its attempt is as wanted.
func (a *logAsk) await(
	ctx context.Context, wanted func(*schedulerv1.Attempt) bool,
) (*schedulerv1.Attempt, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch, err := a.server.scheduler.WatchJob(ctx, &schedulerv1.WatchJobRequest{Job: a.job[:]})
	if err != nil {
		return nil, err
	}
	for {
		m, err := watch.Recv()
		if errors.Is(err, io.EOF) {
			return nil, fault.New(fault.NotFound, gateway.ReasonNoAttempt,
				"the job ended without such an attempt")
		}
		if err != nil {
			return nil, err
		}
		if at := attemptOf(m.GetJob(), a.attempt); at != nil && wanted(at) {
			return at, nil
		}
	}
}

// attemptOf returns an attempt of a job, the newest if named is empty, nil if there is none.
func attemptOf(job *schedulerv1.Job, named []byte) *schedulerv1.Attempt {
	var found *schedulerv1.Attempt
	for _, run := range job.GetRuns() {
		for _, at := range run.GetAttempts() {
			if len(named) == 0 || string(at.GetId()) == string(named) {
				found = at
			}
		}
	}
	return found
}

func ended(at *schedulerv1.Attempt) bool { return at.GetState() == jobv1.State_STATE_ENDED }

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
	client, until, err := a.asker(ctx, target, request)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithDeadlineCause(ctx, until, tokenExpired())
	defer cancel()
	replies, err := client.Stream(ctx, target, methodLogs, request, bus.ForJob(a.job))
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

// forOtherOperator says whose token is wanted.
func forOtherOperator(err error, target bus.Target) error {
	if f := fault.From(err); f != nil && errors.Is(err, rpc.ReasonWrongAudience) {
		return f.With("audience", id.Bech32(id.Account, target.Operator)).
			With("header", executorTokenHeader)
	}
	return err
}

// executor judges the certificate that the scheduler names and returns where to ask.
func (s *Server) executor(
	ctx context.Context, named *identityv1.Certificate,
) (bus.Target, error) {
	if named == nil {
		return bus.Target{}, fault.New(fault.Unavailable, gateway.ReasonNoLog,
			"the attempt was never on a host")
	}
	raw, err := canon.Marshal(proto.CloneOf(named))
	if err != nil {
		return bus.Target{}, notCertified(err)
	}
	// The user's token is not for whoever knows operators' keys.
	certificate, _, err := s.deps.Executors.Verify(rpc.WithToken(ctx, ""), raw)
	if err != nil {
		return bus.Target{}, notCertified(err)
	}
	target, err := bus.TargetOf(certificate, executorService)
	if err != nil {
		return bus.Target{}, notCertified(err)
	}
	return target, nil
}

func notCertified(err error) error {
	return fault.New(fault.Unavailable, gateway.ReasonExecutor,
		"the host of this attempt cannot prove its operator").Because(err)
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
