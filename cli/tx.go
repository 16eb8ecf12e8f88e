package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

func (a *app) txCommand() *cobra.Command {
	return group("tx", "Transactions: sign, submit, look up", a.txSign(), a.txSubmit(), a.txGet())
}

// signing are the flags of tx sign.
type signing struct {
	transfers []string
	memo      string
	validFor  time.Duration
	until     string // RFC 3339; empty: validFor
	fee       amount.Amount
	nonce     int64
	first     bool
}

func (a *app) txSign() *cobra.Command {
	s := signing{}
	cmd := &cobra.Command{
		Use:   "sign [FILE|-]",
		Short: "Sign operations and print a transaction for POST /v1/transactions",
		Long: `Sign a transaction and print the base64 of its canonical bytes. Operations come from
--transfer or from a file (or standard input) that holds a list in the JSON form of
ucn.chain.v1.Operation, as JSON or YAML; ids may be written as bech32 (ucn1..., ucne1..., ucnl1...,
ucnj1...).

Nonce, fee and the chain's time are asked of the ledger; a clock here that is far from it is told,
and nothing is signed without --valid-until if they are more than 24h apart.
With --nonce and --fee nothing is asked, so that a key can sign on a machine without network:
--first then says that the account has never signed, --valid-until until when it may be submitted,
if the clock here cannot be relied on.`,
		Example: `  ucn tx sign --transfer ucn1...=2.5
  echo '[{"top_up": {"escrow": "ucne1...", "amount": "1000000000"}}]' | ucn tx sign -
  curl -H "Authorization: Bearer $(ucn auth token --scope ledger:submit)" \
       -d "{\"transaction\": \"$(ucn tx sign --transfer ucn1...=1)\"}" \
       http://127.0.0.1:7680/v1/transactions`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	cmd.RunE = a.session(withKey, func(ctx context.Context, l *link, list []string) error {
		if s.until != "" && cmd.Flags().Changed("valid-for") {
			return usagef("--valid-for and --valid-until do not go together")
		}
		return a.sign(ctx, l, &s, list)
	})
	f := cmd.Flags()
	f.StringArrayVar(&s.transfers, "transfer", nil, "ACCOUNT=AMOUNT to send; may be repeated")
	f.StringVar(&s.memo, "memo", "", "text that goes into the transaction")
	f.DurationVar(&s.validFor, "valid-for", 10*time.Minute, "how long it may be submitted, up to 24h")
	f.StringVar(&s.until, "valid-until", "", "until when it may be submitted, such as "+
		"2026-01-02T15:04:05Z (default: --valid-for from now)")
	f.Var(&s.fee, "fee", "most that may be charged (default: four times today's)")
	f.Int64Var(&s.nonce, "nonce", -1, "nonce (default: the ledger's next for the account)")
	f.BoolVar(&s.first, "first", false, "with --nonce 0: the account's first, so its key goes along")
	return a.byDelegate(cmd)
}

type signedResult struct {
	Transaction string        `json:"transaction"`
	ID          string        `json:"id"`
	Account     string        `json:"account"`
	Nonce       uint64        `json:"nonce"`
	Fee         amount.Amount `json:"fee_cap"`
	ValidUntil  uint64        `json:"valid_until_ms"`
	// ChainTime is by what ValidUntil was chosen; 0: by the clock here.
	ChainTime uint64 `json:"chain_time_ms,omitempty"`

	id tx.ID
}

func (a *app) sign(ctx context.Context, l *link, s *signing, list []string) error {
	operations, err := a.operations(s, list)
	if err != nil {
		return err
	}
	result, err := a.signOperations(ctx, l, s, operations)
	if err != nil {
		return err
	}
	return a.emit(result, func(w io.Writer) { printf(w, "%s\n", result.Transaction) })
}

// signOperations makes a transaction of operations, which nobody sends yet.
func (a *app) signOperations(
	ctx context.Context, l *link, s *signing, operations []tx.Operation,
) (*signedResult, error) {
	if s.validFor <= 0 || s.validFor > maxValid {
		return nil, usagef("--valid-for is %v, allowed up to 24h", s.validFor)
	}
	key, err := l.Key()
	if err != nil {
		return nil, err
	}
	body := tx.Body{
		Chain: l.Chain, Account: l.Sender.Account(), Signer: l.Signer(),
		Operations: operations, Memo: []byte(s.memo),
		ValidUntil: tx.Millis(l.Now().UnixMilli()), // counts for the fee; chosen below
	}
	chain, first, err := fill(ctx, l, s, &body)
	if err != nil {
		return nil, err
	}
	if body.ValidUntil, err = a.validUntil(l, s, chain); err != nil {
		return nil, err
	}
	signed, err := tx.Sign(body, l.Anchor, sig.SingleKey(key.Public()), first, key)
	if err != nil {
		return nil, usagef("the operations make no transaction: %w", err)
	}
	result := &signedResult{
		Transaction: base64.StdEncoding.EncodeToString(signed.Append(nil)),
		ID:          signed.ID(l.Anchor).String(), Account: accountText(body.Account),
		Nonce: body.Nonce, Fee: amount.Amount(body.Fee), ValidUntil: uint64(body.ValidUntil),
		id: signed.ID(l.Anchor),
	}
	if !chain.IsZero() {
		result.ChainTime = uint64(chain.UnixMilli())
	}
	return result, nil
}

// Bounds of a transaction's time.
const (
	maxValid = 24 * time.Hour // by the chain's rules
	maxSkew  = 10 * time.Second
	// maxBelieved: a ledger that says a time further from the clock here than this could have
	// signed what is valid for as long as it likes.
	maxBelieved = 24 * time.Hour
)

// validUntil chooses until when a transaction may be submitted: by the chain's time, or by the
// clock here when chain is zero.
func (a *app) validUntil(l *link, s *signing, chain time.Time) (tx.Millis, error) {
	now := l.Now()
	if !chain.IsZero() {
		ahead := now.Sub(chain)
		if ahead.Abs() > maxBelieved && s.until == "" {
			return 0, &hinted{fmt.Errorf("the ledger says that it is %s, by this machine's clock it "+
				"is %s: more than 24h apart, so either of them is wrong and nothing is signed",
				chain.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)),
				"set the clock, or say with --valid-until until when it may be submitted"}
		}
		a.tellSkew(ahead)
		now = chain
	}
	if s.until == "" {
		return tx.Millis(now.Add(s.validFor).UnixMilli()), nil
	}
	until, err := time.Parse(time.RFC3339, s.until)
	switch {
	case err != nil:
		return 0, usagef("--valid-until %q is no time such as 2026-01-02T15:04:05Z", s.until)
	case !chain.IsZero() && (!until.After(now) || until.Sub(now) > maxValid):
		return 0, usagef("--valid-until is %s, but by the chain's time it is %s, and 24h ahead is "+
			"the most", until.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case until.UnixMilli() <= 0:
		return 0, usagef("--valid-until %s is before all time", s.until)
	}
	return tx.Millis(until.UnixMilli()), nil
}

// tellSkew warns of a clock that is not the chain's; ahead is how far it is before it.
func (a *app) tellSkew(ahead time.Duration) {
	where := "ahead of"
	if ahead < 0 {
		ahead, where = ahead.Abs(), "behind"
	}
	if ahead > maxSkew && !a.flags.quiet {
		printf(a.Err, "ucn: this machine's clock is %s %s the chain's: set it, or others will refuse "+
			"what it signs; the transaction goes by the chain's\n",
			screen.Elapsed(ahead.Round(time.Second)), where)
	}
}

// fill sets nonce and fee by flags, or else by the ledger, which then tells the chain's time as
// well; first tells whether the key set goes along.
func fill(ctx context.Context, l *link, s *signing, body *tx.Body) (
	now time.Time, first bool, err error,
) {
	if s.nonce >= 0 && s.fee > 0 {
		body.Nonce, body.Fee = uint64(s.nonce), tx.Grains(s.fee)
		return now, s.first, nil
	}
	account, err := l.Ledger.GetAccount(ctx, &ledgerv1.GetAccountRequest{
		Chain: l.Chain, Account: body.Account[:], Signer: body.Signer,
	})
	if err != nil {
		return now, false, fmt.Errorf("ask for the nonce (or give --nonce and --fee): %w", err)
	}
	chain, err := l.Ledger.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: l.Chain})
	if err != nil {
		return now, false, fmt.Errorf("ask for the fees (or give --nonce and --fee): %w", err)
	}
	body.Nonce = account.GetPendingNonce()
	if s.nonce >= 0 {
		body.Nonce = uint64(s.nonce)
	}
	body.Fee = 1<<63 - 1 // the widest, so that the length below is an upper bound
	const headroom = 4   // prices rise with fullness; what is charged is never more than the price
	size := uint64(len(body.Append(nil)))
	body.Fee = tx.Grains(headroom * (uint64(len(body.Operations))*chain.GetOperationFee() +
		size*chain.GetByteFee()))
	if s.fee > 0 {
		body.Fee = tx.Grains(s.fee)
	}
	return chainTime(chain, l.Now()), body.Signer == 0 && account.GetAccount().GetKeys() == nil, nil
}

// chainTime is the chain's time: what the ledger says, but never before its newest block. An older
// ledger does not say; then the own clock has to do.
func chainTime(chain *ledgerv1.GetChainResponse, own time.Time) time.Time {
	head := time.UnixMilli(int64(min(chain.GetHead().GetTime(), math.MaxInt64)))
	now := own
	if ms := chain.GetNow(); ms > 0 {
		now = time.UnixMilli(int64(min(ms, math.MaxInt64)))
	}
	if now.Before(head) {
		return head
	}
	return now
}

// operations reads what is to be signed from flags and file.
func (a *app) operations(s *signing, list []string) ([]tx.Operation, error) {
	var operations []tx.Operation
	for _, text := range s.transfers {
		to, sum, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usagef("--transfer %q is not ACCOUNT=AMOUNT", text)
		}
		account, err := parseAccount(to)
		if err != nil {
			return nil, err
		}
		value, err := amount.Parse(sum)
		if err != nil {
			return nil, err
		}
		operations = append(operations, &tx.Transfer{To: account, Amount: tx.Grains(value)})
	}
	if len(list) > 0 {
		text, err := a.readSmall(list[0], 8*tx.MaxBody)
		if err != nil {
			return nil, err
		}
		more, err := parseOperations(text)
		if err != nil {
			return nil, usage(err)
		}
		operations = append(operations, more...)
	}
	if len(operations) == 0 {
		return nil, usagef("there is nothing to sign: give --transfer, a file, or - for standard input")
	}
	return operations, nil
}

// parseOperations reads a list of operations in JSON or YAML.
func parseOperations(text []byte) ([]tx.Operation, error) {
	var list []any
	if err := yaml.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("operations must be a list in JSON or YAML: %w", err)
	}
	raw, err := json.Marshal(map[string]any{"operations": plainIDs(list)})
	if err != nil {
		return nil, fmt.Errorf("operations: %w", err)
	}
	m := &chainv1.TransactionBody{}
	if err := protojson.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("operations: %w", err)
	}
	// A body needs more than operations to be read; what is put in is not kept.
	m.Chain, m.Account, m.Fee, m.ValidUntil = "main", make([]byte, 32), 1, 1
	m.Account[0] = 1
	body, err := tx.BodyFromPB(m)
	if err != nil {
		return nil, fmt.Errorf("operations: %w", err)
	}
	return body.Operations, nil
}

// plainIDs replaces bech32 texts by the base64 that the JSON form of bytes wants.
func plainIDs(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = plainIDs(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = plainIDs(v[key])
		}
	case string:
		for _, kind := range []string{id.Account, id.Escrow, id.Lease, id.Job} {
			if raw, err := id.ParseBech32(kind, v); err == nil {
				return base64.StdEncoding.EncodeToString(raw[:])
			}
		}
	}
	return v
}

func (a *app) txSubmit() *cobra.Command {
	return &cobra.Command{
		Use:     "submit [TRANSACTION|-]",
		Short:   "Submit a signed transaction and wait until it is committed",
		Example: "  ucn tx sign --transfer ucn1...=1 | ucn tx submit",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			text := []byte(strings.Join(list, ""))
			if len(list) == 0 || list[0] == "-" {
				var err error
				if text, err = a.readSmall("-", 2*tx.MaxTransaction); err != nil {
					return err
				}
			}
			raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
			if err != nil {
				return usagef("a transaction is the base64 text that `ucn tx sign` prints: %w", err)
			}
			if _, err := tx.Decode(raw); err != nil {
				return usagef("this is no transaction: %w", err)
			}
			answer, err := l.Ledger.Submit(ctx, &ledgerv1.SubmitRequest{
				Chain: l.Chain, Transaction: raw, Wait: ledgerv1.Finality_FINALITY_COMMITTED,
			})
			if err != nil {
				return err
			}
			return a.printSubmitted(answer.GetResult(), nil)
		}),
	}
}
