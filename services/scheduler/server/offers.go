package server

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler"
)

const (
	defaultOffers = 100
	maxOfferBytes = 2 << 20 // of one page of offers, the last one beyond
)

// ListOffers implements SchedulerServiceServer.
func (s *Server) ListOffers(
	_ context.Context, r *schedulerv1.ListOffersRequest,
) (*schedulerv1.ListOffersResponse, error) {
	size, err := pageSize(r.GetPageSize(), defaultOffers)
	if err != nil {
		return nil, err
	}
	listing := listingOf(&schedulerv1.ListOffersRequest{
		Operator: r.GetOperator(), Executor: r.GetExecutor(),
	}, sig.AccountID{})
	start, err := readOfferCursor(listing, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	offers, err := s.offersFor(r)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(offers, compareOffers)
	at, _ := slices.BinarySearchFunc(offers, start, compareToCursor)
	response, weight := &schedulerv1.ListOffersResponse{}, 0
	for _, o := range offers[at:] {
		if len(response.Offers) == size || weight > maxOfferBytes {
			response.NextPageToken = listing.token(cursorOf(o).bytes())
			break
		}
		posted, err := postedPB(o)
		if err != nil {
			return nil, err
		}
		weight += len(o.Raw)
		response.Offers = append(response.Offers, posted)
	}
	return response, nil
}

// offersFor returns the offers that the filters leave.
func (s *Server) offersFor(r *schedulerv1.ListOffersRequest) ([]*scheduler.Offer, error) {
	operator, executor := sig.AccountID{}, sig.PublicKey{}
	for _, f := range []struct {
		name string
		raw  []byte
		into []byte
	}{{"operator", r.GetOperator(), operator[:]}, {"executor", r.GetExecutor(), executor[:]}} {
		if n := copy(f.into, f.raw); len(f.raw) != 0 && (n != len(f.raw) || n != len(f.into)) {
			return nil, fault.New(fault.InvalidArgument, ReasonBadRequest,
				"%s has %d bytes, want %d", f.name, len(f.raw), len(f.into))
		}
	}
	switch {
	case len(r.GetExecutor()) > 0:
		o, known := s.engine.Book().Get(executor)
		if !known || len(r.GetOperator()) > 0 && o.Host.Operator != operator {
			return nil, nil
		}
		return []*scheduler.Offer{o}, nil
	case len(r.GetOperator()) > 0:
		return s.engine.Book().Of(operator, s.now()), nil
	}
	live := s.engine.Book().Live(s.now())
	offers := make([]*scheduler.Offer, len(live))
	for i := range live {
		offers[i] = live[i].Offer
	}
	return offers, nil
}

// offerCursor is the place of an offer in the listing: by price of a core hour, then by host.
type offerCursor struct {
	price uint64
	host  sig.PublicKey
}

func cursorOf(o *scheduler.Offer) offerCursor {
	return offerCursor{price: o.Prices.CoreHour, host: o.Host.Executor}
}

// bytes is the place with which the page begins.
func (o offerCursor) bytes() []byte {
	return append(binary.BigEndian.AppendUint64(nil, o.price), o.host[:]...)
}

func readOfferCursor(l listing, token string) (o offerCursor, err error) {
	raw, err := l.place(token, 8+len(o.host))
	if raw == nil {
		return o, err
	}
	return offerCursor{binary.BigEndian.Uint64(raw), sig.PublicKey(raw[8:])}, nil
}

func compareOffers(a, b *scheduler.Offer) int {
	x, y := cursorOf(a), cursorOf(b)
	return cmp.Or(cmp.Compare(x.price, y.price), bytes.Compare(x.host[:], y.host[:]))
}

func compareToCursor(o *scheduler.Offer, start offerCursor) int {
	x := cursorOf(o)
	return cmp.Or(cmp.Compare(x.price, start.price), bytes.Compare(x.host[:], start.host[:]))
}

func postedPB(o *scheduler.Offer) (*schedulerv1.PostedOffer, error) {
	offer := &marketv1.Offer{}
	if err := canon.Unmarshal(o.Raw, offer); err != nil {
		return nil, fmt.Errorf("decode a stored offer: %w", err)
	}
	return &schedulerv1.PostedOffer{Offer: offer, Hash: o.Hash[:]}, nil
}
