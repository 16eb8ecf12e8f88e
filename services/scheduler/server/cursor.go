package server

import (
	"crypto/sha256"
	"encoding/base64"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
)

// listing stands for a query without its page: its kind, who asks, and its filters. A page token is
// a listing and a place in it, so that none is taken for another query, which would silently leave
// out what comes before.
type listing [8]byte

// listingOf returns the listing of a query of which size and token of the page are left out. Nobody
// in particular is the zero account.
func listingOf(query proto.Message, caller sig.AccountID) (of listing) {
	raw, err := canon.Marshal(query)
	if err != nil { // text that is not UTF-8 does not come through the wire
		return of
	}
	kind := query.ProtoReflect().Descriptor().FullName()
	sum := sha256.Sum256(append(append([]byte(kind+"\x00"), caller[:]...), raw...))
	return listing(sum[:])
}

// token returns the page token of a place.
func (l listing) token(place []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(l[:], place...))
}

// place returns the place of a page token, of size bytes, or nil if there is no token.
func (l listing) place(token string, size int) ([]byte, error) {
	if token == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < len(l) {
		return nil, fault.New(fault.InvalidArgument, ReasonBadRequest,
			"page_token is not one that an earlier answer gave")
	}
	if listing(raw[:len(l)]) != l || len(raw) != len(l)+size {
		return nil, fault.New(fault.InvalidArgument, ReasonOtherQuery,
			"page_token is of another query: keep filters and order from page to page")
	}
	return raw[len(l):], nil
}
