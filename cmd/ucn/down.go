package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/wiring"
)

func downCommand() *cobra.Command {
	wipe := false
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the local network of the data folder",
		Long: "Stop the local network of the data folder (--data). Containers that run go on, paid,\n" +
			"and the next `ucn up` takes them up again.\n\n" +
			"With --wipe everything is deleted afterwards: containers, images, files, the chain,\n" +
			"and all keys and wallets in the data folder.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := filepath.Abs(cmd.Flag("data").Value.String())
			if err != nil {
				return fmt.Errorf("data folder: %w", err)
			}
			pid, err := stop(data)
			if err != nil {
				return err
			}
			if wipe {
				if err := wiring.Wipe(cmd.Context(), data); err != nil {
					return err
				}
			}
			return tellDown(cmd, data, pid, wipe)
		},
	}
	cmd.Flags().BoolVar(&wipe, "wipe", false, "then delete everything, keys and wallets too")
	return cmd
}

// tellDown says what was stopped (a process, 0 if none ran) and deleted.
func tellDown(cmd *cobra.Command, data string, pid int, wiped bool) error {
	out := cmd.OutOrStdout()
	if asJSON(cmd) {
		return json.NewEncoder(out).Encode(struct {
			Data    string `json:"data"`
			Stopped int    `json:"stopped_pid"`
			Deleted bool   `json:"deleted"`
		}{data, pid, wiped})
	}
	text := "the network is down\n"
	if pid == 0 {
		text = fmt.Sprintf("no network runs on %s\n", data)
	}
	if wiped {
		text += fmt.Sprintf("%s is deleted\n", data)
	}
	_, err := io.WriteString(out, text)
	return err
}

// stop ends the process that runs on the data folder and waits for its end. It returns the
// process's id; 0: there was none.
func stop(data string) (int, error) {
	pid, err := holder(data)
	if err != nil || pid == 0 {
		return 0, err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return pid, fmt.Errorf("stop process %d: %w", pid, err)
	}
	for deadline := time.Now().Add(downWithin); time.Now().Before(deadline); {
		if now, err := holder(data); err == nil && now == 0 {
			return pid, nil
		}
		time.Sleep(pollEvery)
	}
	return pid, fmt.Errorf("process %d has not stopped within %s", pid, downWithin)
}

// holder returns the process that runs on the data folder, 0 for none.
func holder(data string) (int, error) {
	path := filepath.Join(data, "lock")
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("open the lock: %w", err)
	}
	defer file.Close()
	if unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return 0, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read the lock: %w", err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return 0, fmt.Errorf("the lock %s names no process: %q", path, text)
	}
	return pid, nil
}
