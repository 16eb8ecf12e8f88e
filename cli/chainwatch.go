package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/kit/id"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

func (a *app) chainWatch() *cobra.Command {
	from, count := int64(-1), 0
	account, escrow := "", ""
	cmd := &cobra.Command{
		Use: "watch", Short: "Print every block as it is made",
		Long: `Print blocks as they are made, until Ctrl-C. With --from it begins at an earlier height,
so that a program can go on where it stopped without missing one. With --account or --escrow
only blocks with a transaction about that come, with the numbers of these transactions.`,
		Example: "  ucn chain watch\n  ucn chain watch --from 0 --json\n" +
			"  ucn chain watch --escrow ucne1... --from 0",
		Args: args(cobra.NoArgs),
		RunE: a.following(withoutKey, func(ctx context.Context, l *link, _ []string) error {
			if count < 0 {
				return usagef("--count is %d, and must not be negative", count)
			}
			r, err := watchAsked(l.Chain, from, account, escrow)
			if err != nil {
				return err
			}
			stream, err := l.Ledger.WatchBlocks(ctx, r)
			for n := 0; err == nil && (count == 0 || n < count); n++ {
				var answer *ledgerv1.WatchBlocksResponse
				if answer, err = stream.Recv(); err == nil {
					err = a.watched(answer)
				}
			}
			if ctx.Err() != nil {
				return nil // the user has seen enough
			}
			return err
		}),
	}
	cmd.Flags().Int64Var(&from, "from", -1, "height to begin at (default: the next block)")
	cmd.Flags().IntVar(&count, "count", 0, "stop after so many blocks; 0 is never")
	cmd.Flags().StringVar(&account, "account", "", "only blocks that are about this account")
	cmd.Flags().StringVar(&escrow, "escrow", "", "only blocks that are about this escrow")
	return cmd
}

// watchAsked makes the request of a watch; from is negative for the next block.
func watchAsked(chain string, from int64, account, escrow string) (
	*ledgerv1.WatchBlocksRequest, error,
) {
	if account != "" && escrow != "" {
		return nil, usagef("--account and --escrow are not watched together")
	}
	r := &ledgerv1.WatchBlocksRequest{
		Chain: chain, From: uint64(max(from, 0)), AfterHead: from < 0,
	}
	for _, filter := range []struct {
		text, kind, name string
		into             *[]byte
	}{{account, id.Account, "--account", &r.Account}, {escrow, id.Escrow, "--escrow", &r.Escrow}} {
		if filter.text == "" {
			continue
		}
		raw, err := id.ParseBech32(filter.kind, filter.text)
		if err != nil {
			return nil, usagef("%s: %w", filter.name, err)
		}
		*filter.into = raw[:]
	}
	return r, nil
}

type watchedBlock struct {
	Height     uint64 `json:"height"`
	Hash       string `json:"hash"`
	Time       uint64 `json:"time_ms"`
	Operations uint64 `json:"operations"`
	Bytes      uint64 `json:"body_bytes"`
	StateRoot  string `json:"state_root"`
	Signatures int    `json:"signatures"`
	// Meant are the transactions' places in the block when only some are watched.
	Meant []uint32 `json:"transactions,omitempty"`
}

func (a *app) watched(answer *ledgerv1.WatchBlocksResponse) error {
	h := answer.GetBlock().GetHeader()
	b := watchedBlock{
		Height: h.GetHeight(), Hash: hex.EncodeToString(answer.GetHash()), Time: h.GetTime(),
		Operations: h.GetOperationCount(), Bytes: h.GetBodyLength(),
		StateRoot:  hex.EncodeToString(h.GetStateRoot()),
		Signatures: len(answer.GetBlock().GetCertificate().GetSignatures()),
		Meant:      answer.GetTransactions(),
	}
	if a.flags.json {
		return json.NewEncoder(a.Out).Encode(b) // a line per block
	}
	line := fmt.Sprintf("%s  block %d  %4d operations  %7d bytes  %s", stamp(b.Time), b.Height,
		b.Operations, b.Bytes, b.Hash)
	if len(b.Meant) > 0 {
		line += fmt.Sprintf("  transactions %v", b.Meant)
	}
	_, err := fmt.Fprintln(a.Out, line)
	return err
}
