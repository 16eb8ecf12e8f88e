package server

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler"
)

// offerCursor is the place of an offer in the listing: by price of a core hour, then by host.
type offerCursor struct {
	price uint64
	host  sig.PublicKey
}

func cursorOf(c scheduler.Candidate) offerCursor {
	return offerCursor{price: c.Offer.Prices.CoreHour, host: c.Offer.Host.Executor}
}

// String returns the page token that begins with this offer.
func (o offerCursor) String() string { return fmt.Sprintf("%016x%x", o.price, o.host[:]) }

func parseOfferCursor(text string) (o offerCursor, err error) {
	if text == "" {
		return o, nil
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 8+len(o.host) {
		return o, badCursor()
	}
	return offerCursor{binary.BigEndian.Uint64(raw), sig.PublicKey(raw[8:])}, nil
}

func compareOffers(a, b scheduler.Candidate) int {
	x, y := cursorOf(a), cursorOf(b)
	return cmp.Or(cmp.Compare(x.price, y.price), bytes.Compare(x.host[:], y.host[:]))
}

func compareToCursor(c scheduler.Candidate, start offerCursor) int {
	x := cursorOf(c)
	return cmp.Or(cmp.Compare(x.price, start.price), bytes.Compare(x.host[:], start.host[:]))
}

func postedPB(o *scheduler.Offer) (*schedulerv1.PostedOffer, error) {
	offer := &marketv1.Offer{}
	if err := canon.Unmarshal(o.Raw, offer); err != nil {
		return nil, fmt.Errorf("decode a stored offer: %w", err)
	}
	return &schedulerv1.PostedOffer{Offer: offer, Hash: o.Hash[:]}, nil
}
