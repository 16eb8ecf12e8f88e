package jobrun

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/united-containers/ucn/cli/session"
	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cid"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// maxLogLine bounds a line of a stored log, in bytes; hosts split longer ones.
const maxLogLine = 1 << 20

// ErrNoLog: there is no log to read.
var ErrNoLog = errors.New("no attempt of this job has a log")

// LogLine is one line of a job's output.
type LogLine struct {
	Time    time.Time
	Stream  string // stdout or stderr
	Text    string
	Partial bool // the line goes on
}

// Logs reads the output of a job's newest attempt.
type Logs struct {
	Session *session.Session
	Line    func(LogLine)
}

// Read passes the log on: from storage when the attempt has ended and its log is there, else from
// the host over the bus. With follow it goes on until the attempt ends or ctx does.
func (l *Logs) Read(ctx context.Context, j *schedulerv1.Job, follow bool) error {
	var newest *schedulerv1.Attempt
	for _, run := range j.GetRuns() {
		for _, a := range run.GetAttempts() {
			if len(a.GetLease()) > 0 {
				newest = a
			}
		}
	}
	switch {
	case newest == nil:
		return fmt.Errorf("%w: it is %s, %s", ErrNoLog, stateText(j.GetState()), j.GetReason())
	case newest.GetStatus().GetOutcome().GetLogCid() != "":
		return l.stored(ctx, newest.GetStatus().GetOutcome().GetLogCid())
	case newest.GetStatus().GetOutcome() != nil:
		return nil // it ended and wrote nothing
	}
	return l.fromHost(ctx, j.GetId(), newest, follow)
}

// storedLine is a line of a stored log.
type storedLine struct {
	Time    int64  `json:"time"`
	Stream  string `json:"stream"`
	Text    string `json:"text"`
	Bytes   []byte `json:"bytes"`
	Partial bool   `json:"partial"`
	Gap     bool   `json:"gap"`
}

func (l *Logs) stored(ctx context.Context, name string) error {
	c, err := cid.Parse(name)
	if err != nil {
		return err
	}
	from, err := blob.New(l.Session.Storage).Open(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // only read
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxLogLine)
	for lines.Scan() {
		var line storedLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("log file %s: %w", name, err)
		}
		if line.Gap {
			l.Line(LogLine{Stream: "stderr", Text: "[older output was dropped by the host]"})
		}
		text := line.Text
		if line.Bytes != nil {
			text = string(line.Bytes)
		}
		l.Line(LogLine{
			Time: time.UnixMilli(line.Time), Stream: line.Stream, Text: text, Partial: line.Partial,
		})
	}
	return lines.Err()
}

func (l *Logs) fromHost(
	ctx context.Context, job []byte, a *schedulerv1.Attempt, follow bool,
) error {
	target, err := l.Session.Host(ctx, a.GetExecutor())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHost, err)
	}
	client, err := l.Session.Bus()
	if err != nil {
		return err
	}
	offset := uint64(0)
	for wait := firstBackoff; ; wait = min(2*wait, lastBackoff) {
		err := l.listen(ctx, client, target, &executorv1.LogsRequest{
			Job: job, Attempt: a.GetId(), Offset: offset, Follow: follow,
		}, &offset)
		var gap *bus.GapError
		if errors.Is(err, bus.ReasonSilent) || errors.As(err, &gap) {
			if pause(ctx, wait) {
				continue
			}
		}
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		return err
	}
}

func (l *Logs) listen(
	ctx context.Context, client *bus.Client, target bus.Target, request *executorv1.LogsRequest,
	offset *uint64,
) error {
	stream, err := client.Stream(ctx, target, methodLogs, request)
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		chunk := &executorv1.LogChunk{}
		if err := stream.Next(chunk); err != nil {
			return err
		}
		*offset = chunk.GetNextOffset()
		for _, line := range chunk.GetLines() {
			l.Line(LogLine{
				Time:   time.UnixMilli(int64(line.GetTime())),
				Stream: streamText(line.GetStream()), Text: string(line.GetText()),
				Partial: line.GetPartial(),
			})
		}
	}
}
