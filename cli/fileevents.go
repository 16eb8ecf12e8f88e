package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/event"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

const storageService = "storage"

// fileEvent is one line of file events.
type fileEvent struct {
	Time    uint64 `json:"time_ms"`
	What    string `json:"what"`
	Account string `json:"account,omitempty"`
	CID     string `json:"cid,omitempty"` // of what the account still holds, or asked about
	File    string `json:"file"`          // the blob's name in events
	Name    string `json:"name,omitempty"`
	Pinned  bool   `json:"pinned,omitempty"`
	Expires uint64 `json:"expires_ms,omitempty"`
	Epoch   uint64 `json:"epoch"`
	Seq     uint64 `json:"seq"`
	Signed  bool   `json:"signed"`           // by the instance, which its operator certifies
	Unproof string `json:"reason,omitempty"` // why not
}

func (a *app) fileEvents() *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use: "events [CID]", Short: "Show what storage said of the account's files, with signatures",
		Long: `Show what the storage service told its peers of the account's files, oldest first: kept,
changed (pin or expiry), removed, expired, damaged. Each line is an event that the service signed,
and its signature is verified here.

Events name files so that only their account knows them. A file that the account holds no more is
shown by that name, unless its CID is given.

Files that were removed together are one event, shown as a line for each of them.

The service keeps its newest 1,048,576 events of all accounts; when older ones are missing, a note
on the error output says so.`,
		Example: "  ucn file events\n  ucn file events bafkr4i...",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			asked := &storagev1.ListEventsRequest{All: all}
			if len(list) > 0 {
				if _, err := cid.Parse(list[0]); err != nil {
					return usage(err)
				}
				asked.Cid = list[0]
			}
			r, err := readFileEvents(ctx, l, asked)
			if err != nil {
				return err
			}
			if r.gap {
				printf(a.Err, "ucn: the storage does not keep all that it said: the oldest event it "+
					"has is %d of epoch %d\n", r.oldestSeq, r.oldestEpoch)
			}
			events := r.events
			return a.emit(events, func(w io.Writer) { printFileEvents(w, events) })
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "of all accounts; for the operator's wallet")
	return cmd
}

func printFileEvents(w io.Writer, events []fileEvent) {
	printf(w, "TIME\tWHAT\tEXPIRES\tPINNED\tSIGNED\tFILE\n")
	for _, e := range events {
		expires, pinned, signed, file := "never", "no", "yes", e.CID
		if e.Expires > 0 {
			expires = stamp(e.Expires)
		}
		if e.Pinned {
			pinned = "yes"
		}
		if !e.Signed {
			signed = "no: " + screen.Clean(e.Unproof)
		}
		if file == "" {
			file = e.File
		}
		printf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", stamp(e.Time), e.What, expires, pinned, signed, file)
	}
}

// readFileEvents reads all pages and names what it can.
func readFileEvents(
	ctx context.Context, l *link, asked *storagev1.ListEventsRequest,
) (*fileEventReader, error) {
	r := &fileEventReader{l: l, events: []fileEvent{}}
	for range maxPages {
		page, err := l.Storage.ListEvents(ctx, asked)
		if err != nil {
			return nil, err
		}
		if err := r.take(ctx, page, asked); err != nil {
			return nil, err
		}
		if page.GetDone() {
			break
		}
		asked.PageToken = page.GetNextPageToken()
	}
	return r, nil
}

// fileEventReader verifies and names events.
type fileEventReader struct {
	l        *link
	verifier *event.Verifier
	from     bus.Target
	names    map[cid.Blinded]fileResult
	events   []fileEvent
	gap      bool // something before or between them is not kept any more

	oldestEpoch, oldestSeq uint64 // that is kept, of whichever account
}

// begin judges who signs, and learns what the account's files are called.
func (r *fileEventReader) begin(
	ctx context.Context, page *storagev1.ListEventsResponse, asked *storagev1.ListEventsRequest,
) error {
	c, _, err := cert.Decode(page.GetCertificate())
	if err != nil {
		return fmt.Errorf("the storage's certificate: %w", err)
	}
	if c.Operator != r.l.Operator {
		return errors.New("the storage's certificate is of another operator than the network file's")
	}
	if r.from, err = bus.TargetOf(c, storageService); err != nil {
		return err
	}
	known := event.NewDirectory(event.JudgeBy(r.l.Judge()), r.l.Now)
	known.Learn(ctx, page.GetCertificate())
	r.verifier = event.NewVerifier(event.VerifierConfig{Certificates: known, Clock: r.l.Now})
	if len(page.GetKey()) != len(cid.BlindKey{}) {
		return errors.New("the storage gave no key for the names of files")
	}
	key := cid.BlindKey(page.GetKey())
	r.names = map[cid.Blinded]fileResult{}
	name := func(f fileResult) {
		if c, err := cid.Parse(f.CID); err == nil {
			r.names[key.Blind(c)] = f
		}
	}
	if name(fileResult{CID: asked.GetCid()}); asked.GetCid() != "" {
		return nil
	}
	held, err := heldFiles(ctx, r.l)
	for _, f := range held {
		name(f)
	}
	return err
}

func (r *fileEventReader) take(
	ctx context.Context, page *storagev1.ListEventsResponse, asked *storagev1.ListEventsRequest,
) error {
	if r.verifier == nil {
		if err := r.begin(ctx, page, asked); err != nil {
			return err
		}
	}
	r.gap = r.gap || page.GetGap()
	r.oldestEpoch, r.oldestSeq = page.GetOldestEpoch(), page.GetOldestSeq()
	received := make([]event.Received, len(page.GetEnvelopes()))
	for i, raw := range page.GetEnvelopes() {
		e, err := event.Decode(raw)
		if err != nil {
			return fmt.Errorf("what the storage said: %w", err)
		}
		received[i] = event.Received{Subject: r.from.Event(e.Body.Topic, e.Body.Type), Data: raw}
	}
	for _, v := range r.verifier.Verify(ctx, received) {
		if v.Envelope == nil {
			return fmt.Errorf("what the storage said: %w", v.Err)
		}
		r.events = append(r.events, r.lines(v, asked)...)
	}
	return nil
}

// lines returns one line for each file of an event; of one file only if that was asked for.
func (r *fileEventReader) lines(v event.Verdict, asked *storagev1.ListEventsRequest) []fileEvent {
	b := v.Envelope.Body
	e := fileEvent{Time: b.Time, What: b.Type, Epoch: b.Epoch, Seq: b.Seq, Signed: v.Err == nil}
	if v.Err != nil {
		e.Unproof = v.Err.Error()
	}
	m := &storagev1.FileChange{}
	if b.Type != "file.changed" || v.Envelope.Payload(m) != nil || len(m.GetAccount()) != 32 {
		return []fileEvent{e} // another kind of event, which only the operator is shown
	}
	files := filesOf(m)
	if len(files) == 0 {
		return []fileEvent{e}
	}
	e.What = strings.ToLower(strings.TrimPrefix(m.GetWhat().String(), "WHAT_"))
	e.Pinned, e.Expires = m.GetPinned(), m.GetExpiresMs()
	if asked.GetAll() {
		e.Account = accountText([32]byte(m.GetAccount()))
	}
	var list []fileEvent
	for _, file := range files {
		known, named := r.names[file]
		if asked.GetCid() != "" && !named && len(files) > 1 {
			continue
		}
		e.File, e.CID, e.Name = file.String(), known.CID, known.Name
		list = append(list, e)
	}
	return list
}

// filesOf returns the names of the files a change is about; none if one is no name.
func filesOf(m *storagev1.FileChange) (files []cid.Blinded) {
	all := m.GetFiles()
	if len(all) == 0 {
		all = [][]byte{m.GetFile()}
	}
	for _, one := range all {
		if len(one) != cid.BlindSize {
			return nil
		}
		files = append(files, cid.Blinded(one))
	}
	return files
}
