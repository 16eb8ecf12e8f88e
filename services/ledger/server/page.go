package server

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/fault"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
)

// defaultPage is how many entries a page has when the request does not say.
const defaultPage = 100

// A page token is the first bytes of a hash of the query, and the place where the page before
// ended.
const (
	printSize = 8
	tokenSize = printSize + 8 + 4 + 4
)

// paged is a request for a part of a list.
type paged interface {
	proto.Message
	GetPageSize() uint32
	GetPageToken() string
	GetOrder() ledgerv1.Order
}

// pageOf reads which part of a list is wanted, and returns what makes tokens for the query. The
// query is the request without page_size and page_token.
func pageOf(r paged, query proto.Message, newest bool) (ledger.Page, [printSize]byte, error) {
	page := ledger.Page{Size: int(r.GetPageSize()), Newest: newest}
	switch r.GetOrder() {
	case ledgerv1.Order_ORDER_NEWEST:
		page.Newest = true
	case ledgerv1.Order_ORDER_OLDEST:
		page.Newest = false
	case ledgerv1.Order_ORDER_UNSPECIFIED:
	default:
		return page, [printSize]byte{}, bad("there is no order %d", r.GetOrder())
	}
	if page.Size == 0 {
		page.Size = defaultPage
	}
	if page.Size > ledger.MaxPage {
		return page, [printSize]byte{}, bad("page_size is %d, at most %d", page.Size, ledger.MaxPage)
	}
	print, err := fingerprint(query)
	if err != nil || r.GetPageToken() == "" {
		return page, print, err
	}
	raw, err := base64.RawURLEncoding.DecodeString(r.GetPageToken())
	if err != nil || len(raw) != tokenSize || [printSize]byte(raw) != print {
		return page, print, fault.New(fault.InvalidArgument, ledger.ReasonBadPageToken,
			"page_token is damaged, or of another query: keep all fields but page_size")
	}
	page.After = &ledger.Place{
		Height:    binary.BigEndian.Uint64(raw[printSize:]),
		Index:     binary.BigEndian.Uint32(raw[printSize+8:]),
		Operation: binary.BigEndian.Uint32(raw[printSize+12:]),
	}
	return page, print, nil
}

// fingerprint stands for a query; it differs for queries of different kinds.
func fingerprint(query proto.Message) (print [printSize]byte, err error) {
	raw, err := canon.Marshal(query)
	if err != nil {
		return print, bad("the request is not canonical: %v", err)
	}
	name := query.ProtoReflect().Descriptor().FullName()
	sum := sha256.Sum256(append([]byte(name+"\x00"), raw...))
	return [printSize]byte(sum[:]), nil
}

// token returns the token of the page after a place; empty when there is none.
func token(print [printSize]byte, next *ledger.Place) string {
	if next == nil {
		return ""
	}
	raw := binary.BigEndian.AppendUint64(print[:], next.Height)
	raw = binary.BigEndian.AppendUint32(raw, next.Index)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(raw, next.Operation))
}

func bad(format string, args ...any) error {
	return fault.New(fault.InvalidArgument, ledger.ReasonBadRequest, format, args...)
}
