package server

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/gateway"
)

// Bounds of reading a stored log. A line is at most 64 KiB of text, which JSON writes in at most
// six bytes each.
const (
	maxStoredLine = 512 << 10
	maxEventLines = 256
	maxEventBytes = 96 << 10
)

// stored reads the log from storage, from the line on that the cursor names. A reader whose cursor
// counts no lines gets an event "restart" and then everything.
func (a *logAsk) stored(
	ctx context.Context, at *schedulerv1.Attempt, tell func(event) error,
) (err error) {
	from, anew := a.cursor.FromStored()
	a.cursor = from
	text := at.GetStatus().GetOutcome().GetLogCid()
	if text == "" { // an empty log is no file
		return nil
	}
	file, err := cid.Parse(text)
	if err != nil {
		return fault.New(fault.DataLoss, gateway.ReasonNoLog,
			"the stored log has no proper CID").Because(err)
	}
	body, err := a.server.blobs.Open(ctx, file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	if anew {
		if err := tell(event{name: "restart", data: struct{}{}}); err != nil {
			return err
		}
	}
	return a.tellStored(body, tell)
}

func (a *logAsk) tellStored(body io.Reader, tell func(event) error) error {
	reader := bufio.NewReaderSize(body, maxStoredLine)
	skip := a.cursor.Lines
	var batch []line
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		a.cursor = a.cursor.Read(0, len(batch))
		err := tell(a.event(batch))
		batch, size = nil, 0
		return err
	}
	for {
		text, err := reader.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(text) == 0 {
			return flush()
		}
		if err != nil {
			return damagedLog(err)
		}
		if skip > 0 {
			skip--
			continue
		}
		var one line
		if err := json.Unmarshal(text, &one); err != nil {
			return damagedLog(err)
		}
		batch, size = append(batch, one), size+len(text)
		if len(batch) >= maxEventLines || size >= maxEventBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// damagedLog keeps the fault of a transfer that broke, which the reader can act on.
func damagedLog(err error) error {
	if fault.From(err) != nil {
		return err
	}
	return fault.New(fault.DataLoss, gateway.ReasonLogDamaged,
		"the stored log is not what a log is").Because(err)
}

func attemptText(raw []byte) string { return hex.EncodeToString(raw) }
