// Package refetch lets an instance serve again what it said, and lets those who missed some of it
// ask for it: the bus method "event.v1/Fetch".
//
// What is fetched proves itself: it is verified like anything that a broker delivers. Only
// instances may ask, and the operator of this one; a page is bounded. An owner that does not keep
// an envelope any more says what the oldest is that it keeps; the consumer then goes on there, and
// says so.
package refetch

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
)

// Method is the name on the bus.
const Method = "event.v1/Fetch"

// Bounds of a fetch.
const (
	maxPage  = 384 << 10 // bytes of envelopes in a page; fits into bus.MaxMessage
	maxPages = 64        // asked for at one gap
)

// Reasons of the faults of Method.
const (
	ReasonNotInstance   fault.Reason = "NOT_AN_INSTANCE"
	ReasonWrongInstance fault.Reason = "WRONG_INSTANCE"
	ReasonPlace         fault.Reason = "PLACE_INVALID"
)

// actionRead is what a token of the operator must allow at the instance.
const actionRead = "read"

// Serve registers Method on the bus server of the instance own, which keeps history.
func Serve(s *bus.Server, own cert.Certificate, history event.History) {
	bus.Unary(s, Method, func(
		ctx context.Context, r *eventv1.FetchRequest,
	) (*eventv1.FetchResponse, error) {
		if err := allow(ctx, own, r); err != nil {
			return nil, err
		}
		return page(ctx, history, r)
	})
}

// allow lets instances through, and the operator of this one.
func allow(ctx context.Context, own cert.Certificate, r *eventv1.FetchRequest) error {
	if _, ok := bus.InstanceFrom(ctx); !ok {
		caller, _ := rpc.CallerFrom(ctx)
		if sig.AccountID(caller.Account) != own.Operator {
			return fault.New(fault.PermissionDenied, ReasonNotInstance,
				"only instances may fetch events, and the operator of this one")
		}
		if err := rpc.RequireScope(ctx, token.AdminScope(own.InstanceKey, actionRead)); err != nil {
			return err
		}
	}
	if named := r.GetInstance(); len(named) > 0 && string(named) != string(own.InstanceKey[:]) {
		return fault.New(fault.InvalidArgument, ReasonWrongInstance,
			"the request is for another instance than this")
	}
	return nil
}

func page(
	ctx context.Context, history event.History, r *eventv1.FetchRequest,
) (*eventv1.FetchResponse, error) {
	topic := event.Topic(r.GetTopic())
	if !topic.Valid() {
		return nil, fault.New(fault.InvalidArgument, ReasonPlace,
			"%.20q is none of the topics market, money, job, operator", r.GetTopic())
	}
	epoch, from := r.GetEpoch(), r.GetFrom()
	oldest, newest, err := history.Range(ctx, topic, max(epoch, 1))
	if err == nil && epoch == 0 {
		epoch = max(newest.Epoch, 1)
		oldest, newest, err = history.Range(ctx, topic, epoch)
	}
	if err != nil {
		return nil, fmt.Errorf("read what is kept: %w", err)
	}
	if from == 0 {
		from = max(oldest, 1)
	}
	kept, err := history.Kept(ctx, topic, event.Head{Epoch: epoch, Seq: from - 1})
	if err != nil {
		return nil, fmt.Errorf("read what was said: %w", err)
	}
	out := &eventv1.FetchResponse{Oldest: oldest, Epoch: newest.Epoch, Newest: newest.Seq}
	size := 0
	for _, raw := range kept {
		if size += len(raw); size > maxPage && len(out.Envelopes) > 0 {
			break
		}
		out.Envelopes = append(out.Envelopes, raw)
	}
	return out, nil
}

// Asker asks an instance; *bus.Client is one.
type Asker interface {
	Call(ctx context.Context, t bus.Target, method string, req, resp proto.Message) error
}

// Client fetches from owners. Make it with NewClient.
type Client struct {
	bus Asker
}

// NewClient returns a client that asks through asker.
func NewClient(asker Asker) *Client { return &Client{bus: asker} }

// Fill fetches what is missing before gap.Got, at most event.MaxRefetched envelopes. It is a gap
// hook of event.Consumer. What an owner does not keep any more is a *event.LostError.
func (c *Client) Fill(ctx context.Context, gap *event.GapError) ([]event.Received, error) {
	target, err := bus.TargetOf(gap.Certificate, gap.Service)
	if err != nil {
		return nil, err
	}
	var out []event.Received
	next := gap.Want
	for range maxPages {
		resp := new(eventv1.FetchResponse)
		err := c.bus.Call(ctx, target, Method, &eventv1.FetchRequest{
			Topic: string(gap.Line.Topic), Epoch: gap.Epoch, From: next,
		}, resp)
		if err != nil {
			return nil, fmt.Errorf("ask the owner for events: %w", err)
		}
		if len(resp.Envelopes) == 0 && len(out) == 0 {
			if lost := forgotten(gap, resp); lost != nil {
				return nil, lost
			}
		}
		for _, raw := range resp.Envelopes {
			e, err := event.Decode(raw)
			if err != nil {
				return nil, fmt.Errorf("what the owner sent: %w", err)
			}
			on := target.Event(e.Body.Topic, e.Body.Type)
			out = append(out, event.Received{Subject: on, Data: raw})
			next = e.Body.Seq + 1
		}
		if len(resp.Envelopes) == 0 || next >= gap.Got || len(out) >= event.MaxRefetched {
			break
		}
	}
	return out, nil
}

// forgotten tells whether the owner says that it does not keep what comes next any more. One whose
// newest is not that far yet, or of another epoch, says nothing of the kind.
func forgotten(gap *event.GapError, r *eventv1.FetchResponse) error {
	oldest := r.Oldest
	if r.Epoch > gap.Epoch && oldest == 0 {
		oldest = gap.Got // a later epoch began, and all of this one is gone
	}
	if oldest <= gap.Want {
		return nil
	}
	return &event.LostError{Gap: gap, Oldest: min(oldest, gap.Got)}
}
