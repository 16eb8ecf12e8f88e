package server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/kit/fault"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/gateway"
)

// wantsEvents tells whether a client asks for server-sent events.
func wantsEvents(r *http.Request) bool {
	for _, value := range r.Header.Values("Accept") {
		for one := range strings.SplitSeq(value, ",") {
			kind, _, _ := strings.Cut(one, ";")
			if strings.EqualFold(strings.TrimSpace(kind), "text/event-stream") {
				return true
			}
		}
	}
	return false
}

// watchEvents serves the watch of a job or of blocks as events: "job" with an id that stands for
// its content, "block" with its height as id. Last-Event-ID goes on after it: blocks without gap, a
// job once it is no longer what was seen.
func (s *Server) watchEvents(w http.ResponseWriter, r *http.Request, route gateway.Route) error {
	source := s.jobEvents(route.Job, r.Header.Get("Last-Event-ID"))
	if route.Name == gateway.WatchBlocks {
		ask, err := blocksAsked(r, route.Query)
		if err != nil {
			return err
		}
		source = s.blockEvents(ask)
	}
	stream, end, err := s.beginStream(w, r, route.Name)
	if err != nil {
		return err
	}
	defer end()
	return s.serveEvents(w, stream, source)
}

// data is a message as the data of an event.
func data(m proto.Message) (json.RawMessage, error) {
	return protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
}

func (s *Server) jobEvents(job [32]byte, seen string) produce {
	return func(ctx context.Context, tell func(event) error) error {
		request := &schedulerv1.WatchJobRequest{Job: job[:]}
		stream, err := s.scheduler.WatchJob(ctx, request)
		for err == nil {
			var answer *schedulerv1.WatchJobResponse
			if answer, err = stream.Recv(); err != nil {
				break
			}
			raw, failed := proto.MarshalOptions{Deterministic: true}.Marshal(answer)
			if failed != nil {
				return failed
			}
			sum := sha256.Sum256(raw)
			place := hex.EncodeToString(sum[:8])
			if place != seen { // else it is as the client saw it last
				e := event{name: "job", id: place}
				if e.data, err = data(answer.GetJob()); err == nil {
					err = tell(e)
				}
			}
			if err == nil && answer.GetJob().GetState() == jobv1.State_STATE_ENDED {
				return tell(event{name: "end", data: map[string]string{}})
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

// blocksAsked reads which blocks are wanted.
func blocksAsked(r *http.Request, query url.Values) (*ledgerv1.WatchBlocksRequest, error) {
	ask := &ledgerv1.WatchBlocksRequest{Chain: query.Get("chain")}
	bad := func(name string) error {
		return fault.New(fault.InvalidArgument, gateway.ReasonRequest, "%s cannot be read", name)
	}
	var err error
	for name, into := range map[string]*bool{"bodies": &ask.Bodies, "after_head": &ask.AfterHead} {
		if text := query.Get(name); text != "" {
			if *into, err = strconv.ParseBool(text); err != nil {
				return nil, bad(name)
			}
		}
	}
	for name, into := range map[string]*[]byte{"account": &ask.Account, "escrow": &ask.Escrow} {
		// The route made base64 of the text.
		if *into, err = base64.URLEncoding.DecodeString(query.Get(name)); err != nil {
			return nil, bad(name)
		}
	}
	if text := query.Get("from"); text != "" {
		if ask.From, err = strconv.ParseUint(text, 10, 64); err != nil {
			return nil, bad("from")
		}
	}
	if text := r.Header.Get("Last-Event-ID"); text != "" { // newer than the address
		last, err := strconv.ParseUint(text, 10, 64)
		if err != nil || last+1 == 0 {
			return nil, bad("Last-Event-ID")
		}
		ask.From, ask.AfterHead = last+1, false
	}
	return ask, nil
}

func (s *Server) blockEvents(ask *ledgerv1.WatchBlocksRequest) produce {
	return func(ctx context.Context, tell func(event) error) error {
		stream, err := s.ledger.WatchBlocks(ctx, ask)
		for err == nil {
			var answer *ledgerv1.WatchBlocksResponse
			if answer, err = stream.Recv(); err != nil {
				break
			}
			height := answer.GetBlock().GetHeader().GetHeight()
			e := event{name: "block", id: strconv.FormatUint(height, 10)}
			if e.data, err = data(answer); err == nil {
				err = tell(e)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}
