package cli

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/id"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
)

// hostLine is a host by its offer.
type hostLine struct {
	Host     string `json:"host"`
	Executor string `json:"executor"`
	Operator string `json:"operator"`
	Draining bool   `json:"draining"`
	Free     room   `json:"free"`
	Total    room   `json:"total"`
	Images   int    `json:"images"`
	Expires  uint64 `json:"expires_ms"`
	Notice   uint64 `json:"notice_ms"` // as in offerResult
}

// room is what a host has.
type room struct {
	CPU    jobfile.Cores `json:"cores"`
	Memory uint64        `json:"memory"`
	Disk   uint64        `json:"disk"`
}

func roomOf(r *jobv1.Resources) room {
	return room{jobfile.Cores(r.GetCpuMilli()), r.GetMemory(), r.GetDisk()}
}

func hostLineOf(o *marketv1.Offer) hostLine {
	return hostLine{
		Host: screen.Clean(o.GetHost()), Executor: hex.EncodeToString(o.GetExecutor()),
		Operator: bytesText(id.Account, o.GetOperator()), Draining: o.GetDraining(),
		Free: roomOf(o.GetFree()), Total: roomOf(o.GetTotal()), Images: len(o.GetImages()),
		Expires: o.GetExpires(), Notice: o.GetNotice(),
	}
}

func printHosts(w io.Writer, hosts []hostLine) {
	if len(hosts) == 0 {
		printf(w, "%s\n", "no offer of this operator's hosts stands; --all shows every host, --wallet "+
			"names the operator's wallet")
		return
	}
	printf(w, "HOST\tSTATE\tFREE CORES\tFREE MEMORY\tFREE DISK\tIMAGES\tKEY\n")
	for _, h := range hosts {
		state := "takes work"
		if h.Draining {
			state = "draining"
		}
		printf(w, "%s\t%s\t%s/%s\t%s/%s\t%s/%s\t%d\t%s\n", h.Host, state, h.Free.CPU, h.Total.CPU,
			screen.Bytes(h.Free.Memory), screen.Bytes(h.Total.Memory), screen.Bytes(h.Free.Disk),
			screen.Bytes(h.Total.Disk), h.Images, h.Executor[:min(12, len(h.Executor))])
	}
}

// hostResult is what a host says of itself.
type hostResult struct {
	hostLine
	EvictAt   uint64        `json:"evict_at_ms,omitempty"`
	Reason    string        `json:"reason,omitempty"`
	Prices    jobrun.Prices `json:"prices"`
	Abilities []hostAbility `json:"abilities"`
	Attempts  []hostAttempt `json:"attempts"`
	// Warnings say what keeps the host from taking work or from being paid.
	Warnings   []string `json:"warnings"`
	ClockAhead int64    `json:"clock_ahead_ms"`
}

type hostAbility struct {
	Name    string `json:"name"`
	Present bool   `json:"present"`
	Detail  string `json:"detail,omitempty"`
}

type hostAttempt struct {
	Attempt string        `json:"attempt"`
	Job     string        `json:"job"`
	Lease   string        `json:"lease"`
	State   string        `json:"state"`
	Result  string        `json:"result,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Since   uint64        `json:"since_ms"`
	EvictAt uint64        `json:"evict_at_ms,omitempty"`
	Due     amount.Amount `json:"due"`
}

func hostOf(m *executorv1.GetHostResponse) *hostResult {
	r := &hostResult{
		hostLine: hostLineOf(m.GetOffer()), EvictAt: m.GetEvictAt(), Reason: m.GetReason(),
		Abilities: []hostAbility{}, Attempts: []hostAttempt{}, Warnings: []string{},
		ClockAhead: m.GetClockAheadMs(),
	}
	for _, s := range m.GetWarnings() {
		r.Warnings = append(r.Warnings, screen.Clean(s))
	}
	r.Draining = m.GetDraining()
	prices := price.PricesFromPB(m.GetOffer().GetPrices())
	r.Prices = *jobrun.PricesOf(&prices)
	for _, a := range m.GetAbilities() {
		r.Abilities = append(r.Abilities, hostAbility{a.GetName(), a.GetPresent(), a.GetDetail()})
	}
	return r
}

func hostAttemptOf(s *jobv1.AttemptStatus) hostAttempt {
	a := hostAttempt{
		Attempt: hex.EncodeToString(s.GetAttempt()), Job: bytesText(id.Job, s.GetJob()),
		Lease: bytesText(id.Lease, s.GetLease()), Reason: s.GetReason(), Since: s.GetTime(),
		State: reasonText(s.GetState().String(), "STATE_"), EvictAt: s.GetEvictAt(),
		Due: amount.Amount(s.GetAmount()),
	}
	if o := s.GetOutcome(); o != nil {
		a.Result, a.Due = reasonText(o.GetReason().String(), "END_REASON_"), amount.Amount(o.GetAmount())
	}
	return a
}

func (r *hostResult) print(w io.Writer) {
	printf(w, "host\t%s\nkey\t%s\noperator\t%s\n", r.Host, r.Executor, r.Operator)
	state := "takes work"
	switch {
	case r.Draining && r.EvictAt != 0:
		state = "draining, evicts what still runs at " + stamp(r.EvictAt)
	case r.Draining:
		state = "draining"
	}
	if r.Reason != "" {
		state += ": " + screen.Clean(r.Reason)
	}
	printf(w, "state\t%s\nfree\t%s of %s cores, %s of %s memory, %s of %s disk\n", state, r.Free.CPU,
		r.Total.CPU, screen.Bytes(r.Free.Memory), screen.Bytes(r.Total.Memory),
		screen.Bytes(r.Free.Disk), screen.Bytes(r.Total.Disk))
	for _, s := range r.Warnings {
		printf(w, "warning\t%s\n", s)
	}
	printf(w, "images\t%d held\nasks\t%s\nnotice\t%s\n", r.Images, priceText(&r.Prices),
		noticeText(r.Notice))
	for _, a := range r.Abilities {
		if strings.HasSuffix(a.Name, ".") { // a sentence of what is limited here, and its cure
			printf(w, "note\t%s\n", screen.Clean(a.Name+" "+a.Detail))
			continue
		}
		mark := "no"
		if a.Present {
			mark = "yes"
		}
		printf(w, "%s\t%s\n", screen.Clean(a.Name), strings.TrimSpace(mark+" "+screen.Clean(a.Detail)))
	}
	if len(r.Attempts) > 0 {
		printf(w, "\nATTEMPT\tSTATE\tSINCE\tUCN DUE\tWHY\n")
	}
	for _, a := range r.Attempts {
		state := first(a.Result, a.State)
		if a.EvictAt != 0 && a.Result == "" {
			state += ", goes " + stamp(a.EvictAt)
		}
		printf(w, "%s\t%s\t%s\t%s\t%s\n", a.Attempt, state, stamp(a.Since), a.Due,
			screen.Fit(screen.Clean(a.Reason), 60))
	}
}

type drainResult struct {
	Attempts uint32 `json:"attempts"`
	EvictAt  uint64 `json:"evict_at_ms,omitempty"`
}

func (r *drainResult) print(w io.Writer) {
	printf(w, "it takes no new work; %s", attemptsHere(r.Attempts))
	switch {
	case r.EvictAt != 0 && r.Attempts == 0:
		printf(w, ", and what still comes of earlier promises is evicted at %s", stamp(r.EvictAt))
	case r.EvictAt != 0:
		printf(w, ", and what still runs is evicted at %s", stamp(r.EvictAt))
	}
	printf(w, "\n")
}

func attemptsHere(n uint32) string {
	switch n {
	case 0:
		return "nothing runs here any more"
	case 1:
		return "1 attempt is here still"
	}
	return fmt.Sprintf("%d attempts are here still", n)
}

type evictResult struct {
	Attempt string `json:"attempt"`
	EvictAt uint64 `json:"evict_at_ms"`
}

func (r *evictResult) print(w io.Writer) {
	printf(w, "%s is asked to end at %s\n", r.Attempt, stamp(r.EvictAt))
}
