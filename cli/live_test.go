package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/network"
)

// watchMarket runs market --watch for four readings, of which the second fails twice.
func watchMarket(t *testing.T, u *user, args ...string) (out, complaint string, code int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	u.ctx = ctx
	u.net.Market.Priced = func(n int) error {
		if n == 5 {
			cancel()
		}
		if n == 2 || n == 3 {
			return fault.New(fault.Unavailable, "AWAY", "the scheduler is away")
		}
		return nil
	}
	return u.run(append([]string{"market", "--watch", "--interval", "500ms"}, args...)...)
}

func TestMarketWatch(t *testing.T) {
	t.Run("lines", func(t *testing.T) {
		out, complaint, code := watchMarket(t, started(t, honest))
		if code != cli.ExitOK || strings.Count(out, "PAID LATELY") != 2 ||
			strings.Contains(out, "\x1b") ||
			strings.Count(complaint, "the scheduler is away; trying again") != 1 {
			t.Errorf("exit code %d, %s\n%s", code, complaint, out)
		}
	})
	t.Run("json", func(t *testing.T) {
		u := started(t, honest)
		u.columns = 80
		out, _, code := watchMarket(t, u, "--json")
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if code != cli.ExitOK || len(lines) != 2 {
			t.Errorf("exit code %d, %d lines: %s", code, len(lines), out)
		}
		for _, line := range lines {
			var m struct{ Offers []any }
			if err := json.Unmarshal([]byte(line), &m); err != nil || len(m.Offers) != 1 {
				t.Errorf("%v: %s", err, line)
			}
		}
	})
	t.Run("terminal", func(t *testing.T) {
		u := started(t, honest)
		u.columns, u.rows = 40, 24
		out, complaint, code := watchMarket(t, u)
		frames := strings.Split(out, "\x1b[J")
		if code != cli.ExitOK || complaint != "" || len(frames) != 5 || frames[4] != "" {
			t.Fatalf("exit code %d, %d frames, %s: %q", code, len(frames), complaint, out)
		}
		lines := 0
		for i, frame := range frames[:4] {
			if i > 0 { // it is drawn over the one before
				up := fmt.Sprintf("\x1b[%dA\r", lines)
				if !strings.HasPrefix(frame, up) {
					t.Errorf("frame %d does not begin with %q: %q", i, up, frame)
				}
				frame = strings.TrimPrefix(frame, up)
			}
			all := strings.Split(strings.TrimSuffix(frame, "\x1b[K\n"), "\x1b[K\n")
			for _, line := range all {
				if len([]rune(line)) > 39 {
					t.Errorf("a line of %d columns: %q", len([]rune(line)), line)
				}
			}
			lines = len(all)
			if away := strings.Contains(frame, "the scheduler is"); away != (i == 1 || i == 2) {
				t.Errorf("frame %d: %q", i, frame)
			}
		}
	})
	t.Run("low terminal", func(t *testing.T) {
		u := started(t, honest)
		u.columns, u.rows = 80, 6
		out, _, _ := watchMarket(t, u)
		first, _, _ := strings.Cut(out, "\x1b[J")
		if strings.Count(first, "\n") > 5 || !strings.Contains(first, "lines more") {
			t.Errorf("on 6 rows: %q", first)
		}
	})
}

func TestMarketEndsWhenNobodyAnswersAtFirst(t *testing.T) {
	u := started(t, honest)
	u.net.Market.Priced = func(int) error {
		return fault.New(fault.Unavailable, "AWAY", "the scheduler is away")
	}
	if _, complaint, code := u.run("market", "--watch"); code != cli.ExitFailed ||
		!strings.Contains(complaint, "away") {
		t.Errorf("exit code %d: %s", code, complaint)
	}
	if _, _, code := u.run("market", "--watch", "--interval", "1ms"); code != cli.ExitUsage {
		t.Errorf("an interval of 1 ms: exit code %d", code)
	}
}

// TestCompletionWaitsForNobody: a server that takes connections and never answers.
func TestCompletionWaitsForNobody(t *testing.T) {
	u := started(t, honest)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts: the kernel does
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := silent.Close(); err != nil {
			t.Error(err)
		}
	}()
	file := u.net.File()
	file.API = silent.Addr().String()
	if err := network.Save(network.Path(u.data), file); err != nil {
		t.Fatal(err)
	}
	u.net = nil // sessions are real ones
	for _, words := range [][]string{{"job", "bill", ""}, {"escrow", "get", ""}} {
		best := time.Hour // of a few, as the machine may be busy
		for range 4 {
			var out, bad bytes.Buffer
			root := u.command("", &out, &bad)
			root.SetArgs(append([]string{"__complete", "--data", u.data}, words...))
			begun := time.Now()
			code := cli.ExecuteContext(t.Context(), root)
			best = min(best, time.Since(begun))
			if lines := strings.Split(out.String(), "\n"); code != cli.ExitOK || lines[0] != ":4" {
				t.Errorf("%v: exit code %d, %q", words, code, out.String())
			}
			// The one line is cobra's own, which the shells' scripts throw away.
			if noise := strings.Split(strings.TrimSpace(bad.String()), "\n"); len(noise) != 1 {
				t.Errorf("%v: noise %q", words, bad.String())
			}
			if best < time.Second {
				break
			}
		}
		if best >= time.Second {
			t.Errorf("%v: it took %v", words, best)
		}
	}
}
