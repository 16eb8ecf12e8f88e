package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// maxListed bounds what one listing command prints.
const maxListed = 100_000

// pageSize is how much a listing asks for at once.
const pageSize = 500

type historyEntry struct {
	Transaction string          `json:"transaction"`
	Height      uint64          `json:"height"`
	Time        uint64          `json:"time_ms"`
	Sent        bool            `json:"sent"`
	Account     string          `json:"account"`
	Kinds       []string        `json:"operations"`
	Amount      amount.Amount   `json:"amount"`
	Fee         amount.Amount   `json:"fee"`
	Status      string          `json:"status"`
	Memo        string          `json:"memo,omitempty"`
	Body        json.RawMessage `json:"body"`
}

// historyOptions are the flags of a history.
type historyOptions struct {
	sent, received, ok, oldest bool
	kinds                      []string
	since, until               string
	limit                      int
}

func (o *historyOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.sent, "sent", false, "only what the account sent")
	f.BoolVar(&o.received, "received", false, "only what others sent that names it")
	f.BoolVar(&o.ok, "succeeded", false, "leave out what failed")
	f.BoolVar(&o.oldest, "oldest", false, "oldest first")
	f.StringSliceVar(&o.kinds, "kind", nil, "only with such operations: transfer, open-escrow, "+
		"top-up, withdraw, place-lease, charge, settle, close-escrow, ...")
	f.StringVar(&o.since, "since", "", "at or after: a time (RFC 3339), a date, or an age as 24h")
	f.StringVar(&o.until, "until", "", "before: a time, a date, or an age")
	f.IntVar(&o.limit, "limit", 50, "how many; 0 is all, at most 100000")
}

func (o *historyOptions) request(l *link, account sig.AccountID) (
	*ledgerv1.ListTransactionsRequest, error,
) {
	r := &ledgerv1.ListTransactionsRequest{
		Chain: l.Chain, Account: account[:], SucceededOnly: o.ok,
	}
	switch {
	case o.sent && o.received:
	case o.sent:
		r.Direction = ledgerv1.Direction_DIRECTION_SENT
	case o.received:
		r.Direction = ledgerv1.Direction_DIRECTION_RECEIVED
	}
	if o.oldest {
		r.Order = ledgerv1.Order_ORDER_OLDEST
	}
	for _, text := range o.kinds {
		kind, err := kindOf("--kind", text)
		if err != nil {
			return nil, err
		}
		r.Kinds = append(r.Kinds, kind)
	}
	var err error
	if r.FromTime, err = timeOf("--since", o.since, l.Now()); err != nil {
		return nil, err
	}
	r.ToTime, err = timeOf("--until", o.until, l.Now())
	return r, err
}

const kindPrefix = "OPERATION_KIND_"

func kindOf(flag, text string) (ledgerv1.OperationKind, error) {
	name := kindPrefix + strings.ToUpper(strings.ReplaceAll(text, "-", "_"))
	if number := ledgerv1.OperationKind_value[name]; number != 0 {
		return ledgerv1.OperationKind(number), nil
	}
	return 0, usagef("%s %q is none of %s", flag, text, strings.Join(kindNames(), ", "))
}

// kindNames are the names of all operations, by number.
func kindNames() (names []string) {
	for number := int32(1); ledgerv1.OperationKind_name[number] != ""; number++ {
		names = append(names, reasonText(ledgerv1.OperationKind_name[number], kindPrefix))
	}
	return names
}

// timeOf reads a time of a flag as ms since 1970; 0 for none.
func timeOf(flag, text string, now time.Time) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	if age, err := time.ParseDuration(text); err == nil && age > 0 {
		return uint64(max(now.Add(-age).UnixMilli(), 1)), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil && at.Unix() > 0 {
			return uint64(at.UnixMilli()), nil
		}
	}
	return 0, usagef("%s %q is neither a time such as 2026-01-31T12:00:00Z, nor a date, nor an age "+
		"such as 24h", flag, text)
}

func (a *app) history(use, example string) *cobra.Command {
	o := historyOptions{}
	cmd := &cobra.Command{
		Use: use + " [ACCOUNT]", Short: "List what an account sent and what names it",
		Long: `List an account's transactions, the wallet's by default, newest first: what it sent, and
what others sent that names it as receiver, payee, owner or assigner. The chain keeps all of it.`,
		Example: example, Args: args(cobra.MaximumNArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			account, err := a.accountOf(list)
			if err != nil {
				return err
			}
			r, err := o.request(l, account)
			if err != nil {
				return err
			}
			entries := []historyEntry{}
			err = collect(o.limit, func(size int, token string) (int, string, error) {
				r.PageSize, r.PageToken = uint32(size), token
				page, err := l.Ledger.ListTransactions(ctx, r)
				for _, m := range page.GetTransactions() {
					e, err := historyOf(m)
					if err != nil {
						return 0, "", err
					}
					entries = append(entries, e)
				}
				return len(entries), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			return a.emit(entries, func(w io.Writer) { printHistory(w, account, entries) })
		}),
	}
	o.add(cmd)
	return cmd
}

// collect asks for pages until there are limit entries, or no more. page returns how many there are
// by now and the token of the next page.
func collect(
	limit int, page func(size int, token string) (have int, next string, err error),
) error {
	if limit < 0 || limit > maxListed {
		return usagef("--limit is %d, allowed 0 (all) to %d", limit, maxListed)
	}
	all := limit == 0
	if all {
		limit = maxListed
	}
	have, token := 0, ""
	for range maxListed { // pages may be empty, but not for ever
		var err error
		have, token, err = page(min(limit-have, pageSize), token)
		if err != nil || token == "" {
			return err
		}
		if have >= limit && !all {
			return nil
		}
		if have >= limit {
			break
		}
	}
	return fmt.Errorf("the list goes on beyond %d entries: narrow it down", maxListed)
}

func historyOf(m *ledgerv1.TransactionEntry) (historyEntry, error) {
	raw, err := rawJSON(m.GetBody())
	e := historyEntry{
		Transaction: hex.EncodeToString(m.GetId()), Height: m.GetHeight(), Time: m.GetTime(),
		Sent: m.GetSent(), Account: bytesText(id.Account, m.GetBody().GetAccount()),
		Fee: amount.Amount(m.GetReceipt().GetFee()), Memo: string(m.GetBody().GetMemo()), Body: raw,
		Status: reasonText(m.GetReceipt().GetStatus().String(), "STATUS_"),
	}
	if reason := m.GetReceipt().GetReason(); reason != 0 {
		e.Status += ": " + reasonText(reason.String(), "REASON_")
	}
	for i, o := range m.GetBody().GetOperations() {
		e.Kinds = append(e.Kinds, operationText(o))
		if i < len(m.GetReceipt().GetOutcomes()) {
			e.Amount += amount.Amount(m.GetReceipt().GetOutcomes()[i].GetAmount())
		}
	}
	return e, err
}

// operationText is the name of an operation for people.
func operationText(o *chainv1.Operation) string {
	m := o.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if field == nil {
		return "nothing"
	}
	return strings.ReplaceAll(string(field.Name()), "_", "-")
}

// kindsText words operations, each once with its number.
func kindsText(kinds []string) string {
	var parts []string
	for i := 0; i < len(kinds); {
		n := 1
		for i+n < len(kinds) && kinds[i+n] == kinds[i] {
			n++
		}
		part := kinds[i]
		if n > 1 {
			part += " ×" + strconv.Itoa(n)
		}
		parts = append(parts, part)
		i += n
	}
	const most = 3
	if len(parts) > most {
		parts = append(parts[:most], "...")
	}
	return strings.Join(parts, ", ")
}

func printHistory(w io.Writer, account sig.AccountID, entries []historyEntry) {
	if len(entries) == 0 {
		printf(w, "nothing on the chain matches for %s\n", accountText(account))
		return
	}
	printf(w, "TIME\tBLOCK\tWHAT\tAMOUNT\tFEE\tBY\tTRANSACTION\n")
	for _, e := range entries {
		by, fee := "you", amount.Text(e.Fee)
		if !e.Sent {
			by, fee = e.Account[:min(12, len(e.Account))]+"…", "-"
		}
		what := kindsText(e.Kinds)
		if e.Status != "ok" {
			what += " (" + e.Status + ")"
		}
		printf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", stamp(e.Time), e.Height, what,
			amount.Text(e.Amount), fee, by, e.Transaction)
	}
}
