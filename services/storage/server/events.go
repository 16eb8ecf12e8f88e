package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
)

// TypeFileChanged, on TopicFiles, carries a FileChange.
const (
	TypeFileChanged = "file.changed"
	TopicFiles      = event.TopicJob
)

const (
	maxEventPage   = 1 << 20 // bytes of the envelopes of a page
	maxEventEpochs = 64      // that are looked into for the next envelope; each is a restore
)

// Told is what this service says and said.
type Told struct {
	// History is what was said. Required.
	History event.History
	// Key returns the key under which events name an account's blobs. Required.
	Key func(storage.Account) cid.BlindKey
	// Certificate is the instance's, in canonical bytes.
	Certificate []byte
}

// EventOf makes the event that tells peers of a change. Its error is one of canonical encoding.
func EventOf(e storage.Event, chain string) (event.Event, error) {
	m := &storagev1.FileChange{What: storagev1.What(e.What), Account: e.Account[:], Pinned: e.Pinned}
	if m.File = e.File[:]; len(e.Files) > 0 {
		m.File = nil
	}
	for _, file := range e.Files {
		m.Files = append(m.Files, file[:])
	}
	if !e.Expires.IsZero() {
		m.ExpiresMs = uint64(e.Expires.UnixMilli())
	}
	payload, err := canon.Marshal(m)
	if err != nil {
		return event.Event{}, fmt.Errorf("encode a file's change: %w", err)
	}
	return event.Event{
		Topic: TopicFiles, Type: TypeFileChanged, Time: e.Time, Chain: chain, Payload: payload,
	}, nil
}

// ListEvents implements storagev1.StorageServiceServer.
func (s *Server) ListEvents(ctx context.Context, request *storagev1.ListEventsRequest) (
	*storagev1.ListEventsResponse, error,
) {
	response, err := s.listEvents(ctx, request)
	return response, s.metrics.failed(ctx, err)
}

func (s *Server) listEvents(ctx context.Context, request *storagev1.ListEventsRequest) (
	*storagev1.ListEventsResponse, error,
) {
	session, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	account, err := session.WholeAccount()
	if err != nil {
		return nil, err
	}
	if s.deps.Told == nil {
		return nil, fault.New(fault.FailedPrecondition, storage.ReasonSilent,
			"this service tells nobody what happens to files")
	}
	key := s.deps.Told.Key(account)
	wanted, err := s.wanted(request, account, key)
	if err != nil {
		return nil, err
	}
	of, err := queryOf("listEvents", &storagev1.ListEventsRequest{
		Cid: request.GetCid(), All: request.GetAll()})
	if err != nil {
		return nil, err
	}
	at, err := of.place(request.GetPageToken())
	if err != nil {
		return nil, err
	}
	response := &storagev1.ListEventsResponse{
		Key: key[:], Certificate: s.deps.Told.Certificate}
	if at, err = s.page(ctx, at, wanted, response); err != nil {
		return nil, err
	}
	oldest, err := s.oldest(ctx)
	if err != nil {
		return nil, err
	}
	response.OldestEpoch, response.OldestSeq = oldest.Epoch, oldest.Seq
	response.NextPageToken = of.placeToken(at)
	return response, nil
}

// wanted returns what picks the events of a request.
func (s *Server) wanted(
	request *storagev1.ListEventsRequest, account storage.Account, key cid.BlindKey,
) (func(*event.Envelope) bool, error) {
	if request.GetAll() {
		if s.deps.Operator == (storage.Account{}) || account != s.deps.Operator {
			return nil, fault.New(fault.PermissionDenied, storage.ReasonNotOperator,
				"only the operator's account may read the events of all")
		}
		if request.GetCid() != "" {
			return nil, storage.BadRequest("events of all accounts name no CIDs: leave out cid or all")
		}
		return func(*event.Envelope) bool { return true }, nil
	}
	file := cid.Blinded{}
	if request.GetCid() != "" {
		c, err := cid.Parse(request.GetCid())
		if err != nil {
			return nil, err
		}
		file = key.Blind(c)
	}
	return func(e *event.Envelope) bool {
		m := &storagev1.FileChange{}
		if e.Type() != TypeFileChanged || e.Payload(m) != nil ||
			storage.Account(m.GetAccount()) != account {
			return false
		}
		return request.GetCid() == "" || bytes.Equal(m.GetFile(), file[:]) ||
			slices.ContainsFunc(m.GetFiles(), func(f []byte) bool { return bytes.Equal(f, file[:]) })
	}, nil
}

// page fills in one page of what follows a place, and returns the place where the next begins.
func (s *Server) page(ctx context.Context, at event.Head, wanted func(*event.Envelope) bool,
	response *storagev1.ListEventsResponse,
) (event.Head, error) {
	next, err := s.behind(ctx, at)
	if err != nil {
		return at, err
	}
	kept := next.kept
	at, response.Gap = next.at, next.gap
	size := 0
	for _, raw := range kept {
		e, err := event.Decode(raw)
		if err != nil {
			return at, fmt.Errorf("read what was said: %w", err)
		}
		if wanted(e) {
			if size += len(raw); size > maxEventPage && len(response.Envelopes) > 0 {
				return at, nil
			}
			response.Envelopes = append(response.Envelopes, raw)
		}
		at = event.Head{Epoch: e.Body.Epoch, Seq: e.Body.Seq}
	}
	response.Done = len(kept) == 0
	return at, nil
}

// found is what was said behind a place.
type found struct {
	kept [][]byte
	at   event.Head // behind which kept begins: the place, or where it goes on
	gap  bool       // between the two something was said that is not kept any more, or may have been
}

// behind returns what was said behind a place. It goes on elsewhere when what followed is not kept
// any more or a new epoch began.
func (s *Server) behind(ctx context.Context, at event.Head) (f found, err error) {
	f.at = at
	for range maxEventEpochs {
		f.kept, err = s.deps.Told.History.Kept(ctx, TopicFiles, f.at)
		if err != nil || len(f.kept) > 0 {
			return f, err
		}
		oldest, newest, err := s.deps.Told.History.Range(ctx, TopicFiles, f.at.Epoch)
		switch {
		case err != nil:
			return f, err
		case oldest > f.at.Seq+1:
			f.at.Seq, f.gap = oldest-1, true
		case newest.Epoch > f.at.Epoch:
			f.gap = f.gap || oldest == 0 // nothing tells an epoch without events from a forgotten one
			f.at = event.Head{Epoch: f.at.Epoch + 1}
		default:
			return f, nil
		}
	}
	return f, nil
}

// oldest returns the first place that is kept; zero when there is none in the first epochs.
func (s *Server) oldest(ctx context.Context) (event.Head, error) {
	for epoch := uint64(event.FirstEpoch); epoch <= maxEventEpochs; epoch++ {
		seq, newest, err := s.deps.Told.History.Range(ctx, TopicFiles, epoch)
		if err != nil {
			return event.Head{}, err
		}
		if seq > 0 {
			return event.Head{Epoch: epoch, Seq: seq}, nil
		}
		if newest.Epoch <= epoch {
			break
		}
	}
	return event.Head{}, nil
}

const placeSize = 16 // bytes of epoch and seq

// placeToken names the place behind an event.
func (q query) placeToken(at event.Head) string {
	raw := binary.BigEndian.AppendUint64(q[:], at.Epoch)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(raw, at.Seq))
}

// place reads a token of this query; "" is the beginning.
func (q query) place(token string) (event.Head, error) {
	if token == "" {
		return event.Head{Epoch: event.FirstEpoch}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != queryMark+placeSize || query(raw[:queryMark]) != q {
		return event.Head{}, storage.BadRequest("the page token is not one this query gave")
	}
	at := event.Head{
		Epoch: binary.BigEndian.Uint64(raw[queryMark:]), Seq: binary.BigEndian.Uint64(raw[queryMark+8:]),
	}
	if at.Epoch < event.FirstEpoch || at.Epoch >= 1<<62 || at.Seq >= 1<<62 {
		return event.Head{}, storage.BadRequest("the page token is not one this query gave")
	}
	return at, nil
}
