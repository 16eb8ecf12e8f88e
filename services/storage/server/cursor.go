package server

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
)

const queryMark = 8 // bytes of a query's hash in its page tokens

// query is what a page token belongs to: one of another query would skip what it never showed.
type query [queryMark]byte

// queryOf names a call and what it asks for, which is the request without place and page size.
func queryOf(call string, asked proto.Message) (query, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(asked)
	if err != nil {
		return query{}, fmt.Errorf("name a query: %w", err)
	}
	sum := sha256.Sum256(append([]byte(call+"\n"), raw...))
	return query(sum[:queryMark]), nil
}

// token names the place behind a CID; the zero CID is the end, "".
func (q query) token(after cid.CID) string {
	if after.IsZero() {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(append(q[:], after.Bytes()...))
}

// after reads a token of this query; "" is the beginning.
func (q query) after(token string) (cid.CID, error) {
	if token == "" {
		return cid.CID{}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil && len(raw) > queryMark && query(raw[:queryMark]) == q {
		if after, err := cid.FromBytes(raw[queryMark:]); err == nil {
			return after, nil
		}
	}
	return cid.CID{}, storage.BadRequest("the page token is not one this query gave")
}
