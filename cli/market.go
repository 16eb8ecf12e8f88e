package cli

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/id"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

type offerResult struct {
	Host      string        `json:"host"`
	Operator  string        `json:"operator"`
	Executor  string        `json:"executor"`
	Offer     string        `json:"offer"`
	Model     string        `json:"model"`
	CoreHour  amount.Amount `json:"core_hour"`
	Memory    amount.Amount `json:"memory_gib_hour"`
	Disk      amount.Amount `json:"disk_gib_hour"`
	Run       amount.Amount `json:"run"`
	FreeCPU   jobfile.Cores `json:"free_cores"`
	FreeMem   uint64        `json:"free_memory"`
	FreeDisk  uint64        `json:"free_disk"`
	Platforms []string      `json:"platforms"`
	Isolation []string      `json:"isolation"`
	Expires   uint64        `json:"expires_ms"`
	Draining  bool          `json:"draining"`
	// Notice is the time whose rate is paid beside the use when the owner ends a lease early.
	Notice uint64 `json:"notice_ms"`
}

func (a *app) marketCommand() *cobra.Command {
	watch, every := false, watchEvery
	cmd := &cobra.Command{
		Use: "market", Short: "Show prices, what was paid lately, and every offer",
		Long: `Show best and median prices by platform, what was paid lately, and every offer, cheapest
first. With --watch it is shown anew every two seconds until Ctrl-C: in place on a terminal, one
after the other elsewhere, a line of JSON each with --json.`,
		Example: "  ucn market\n  ucn market --json\n  ucn market --watch --interval 10s",
		Args:    args(cobra.NoArgs),
	}
	once := a.session(withoutKey, func(ctx context.Context, l *link, _ []string) error {
		market, err := askMarket(ctx, l)
		if err != nil {
			return err
		}
		return a.emit(market, market.print)
	})
	again := a.following(withoutKey, func(ctx context.Context, l *link, _ []string) error {
		live := &watching{a: a, every: every, read: func(ctx context.Context) (reading, error) {
			market, err := askMarket(ctx, l)
			return reading{value: market, print: market.print}, err
		}}
		return live.run(ctx)
	})
	cmd.RunE = func(cmd *cobra.Command, list []string) error {
		if err := checkEvery(every); err != nil {
			return err
		}
		if watch {
			return again(cmd, list)
		}
		return once(cmd, list)
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again and again")
	cmd.Flags().DurationVar(&every, "interval", watchEvery, "time between two readings")
	return cmd
}

// askMarket asks for prices and every offer.
func askMarket(ctx context.Context, l *link) (*marketResult, error) {
	offers := []offerResult{}
	token := ""
	for range maxPages {
		answer, err := l.Scheduler.ListOffers(ctx, &schedulerv1.ListOffersRequest{
			PageToken: token,
		})
		if err != nil {
			return nil, err
		}
		for _, posted := range answer.GetOffers() {
			offers = append(offers, offerOf(posted))
		}
		if token = answer.GetNextPageToken(); token == "" {
			break
		}
	}
	summary, err := l.Scheduler.GetMarket(ctx, &schedulerv1.GetMarketRequest{})
	if err != nil {
		return nil, err
	}
	market := marketOf(summary, offers)
	return &market, nil
}

// maxPages bounds how many pages a listing fetches.
const maxPages = 100

func offerOf(posted *schedulerv1.PostedOffer) offerResult {
	o := posted.GetOffer()
	r := offerResult{
		Host: screen.Clean(o.GetHost()), Operator: bytesText(id.Account, o.GetOperator()),
		Executor: hex.EncodeToString(o.GetExecutor()), Offer: hex.EncodeToString(posted.GetHash()),
		Model:    reasonText(o.GetPrices().GetModel().String(), "PRICE_MODEL_"),
		CoreHour: amount.Amount(o.GetPrices().GetCoreHour()),
		Memory:   amount.Amount(o.GetPrices().GetMemoryGibHour()),
		Disk:     amount.Amount(o.GetPrices().GetDiskGibHour()),
		Run:      amount.Amount(o.GetPrices().GetRun()),
		FreeCPU:  jobfile.Cores(o.GetFree().GetCpuMilli()),
		FreeMem:  o.GetFree().GetMemory(), FreeDisk: o.GetFree().GetDisk(),
		Expires: o.GetExpires(), Draining: o.GetDraining(),
		Notice: o.GetNotice(),
	}
	for _, platform := range o.GetPlatforms() {
		r.Platforms = append(r.Platforms, screen.Clean(platform))
	}
	for _, class := range o.GetIsolation() {
		r.Isolation = append(r.Isolation, reasonText(class.String(), "ISOLATION_"))
	}
	return r
}

func printOffers(w io.Writer, offers []offerResult) {
	if len(offers) == 0 {
		printf(w, "no host offers anything at the moment\n")
		return
	}
	printf(w, "HOST\tCORE·H\tGiB·H\tRUN\tFREE\tPLATFORM\tOPERATOR\n")
	for _, o := range offers {
		note := ""
		if o.Draining {
			note = " (draining)"
		}
		if o.Notice > 0 {
			note += fmt.Sprintf(" (notice %s)", noticeText(o.Notice))
		}
		printf(w, "%s%s\t%s\t%s\t%s\t%s cores, %s\t%s\t%s…\n", o.Host, note, o.CoreHour, o.Memory,
			o.Run, o.FreeCPU, screen.Bytes(o.FreeMem), strings.Join(o.Platforms, " "),
			screen.Clean(o.Operator)[:min(16, len(o.Operator))])
	}
}

// noticeText tells the notice of an offer, ms.
func noticeText(ms uint64) string {
	if ms > uint64((24 * time.Hour).Milliseconds()) {
		return "of more than a day"
	}
	return (time.Duration(ms) * time.Millisecond).String()
}
