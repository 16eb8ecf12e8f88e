package podman

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

// Start implements executor.Container.
func (c *container) Start(ctx context.Context) error {
	c.life.Lock()
	defer c.life.Unlock()
	if _, err := c.known(); err != nil {
		return err
	}
	if _, over, err := c.exit(ctx); err != nil || over {
		return err
	}
	if c.dir.marked("started") {
		in, err := c.inspect(ctx)
		if err != nil || !notStarted(in.State.Status) {
			return err
		}
	} else if err := c.dir.writeSynced("started", c.i.bootID); err != nil {
		return err
	}
	err := c.i.api.call(ctx, post("/containers/"+c.name+"/start"), nil, nil)
	if detail, refused := programRefused(err); refused {
		return c.refuse(detail)
	}
	if errors.Is(err, errHung) {
		return c.startHung(ctx, err)
	}
	if err != nil {
		return fmt.Errorf("starting %s: %w", c.id, err)
	}
	return nil
}

// startHung looks what came of a start that the engine hung over. One that came to nothing is not
// tried again: it would hang again, and each time the service goes that others use.
func (c *container) startHung(ctx context.Context, cause error) error {
	c.i.cfg.Log.Error("podman hangs over the start of a container", slog.String("attempt",
		string(c.id)), slog.Any("error", cause))
	in, err := c.inspect(ctx)
	if err != nil || !notStarted(in.State.Status) {
		return err
	}
	return c.refuse("the engine hung when it was to start the program")
}

// programRefused tells a start that failed for what the container is asked to run from one that
// failed for the host. The words are runc's and crun's.
func programRefused(err error) (string, bool) {
	var e *apiError
	if !errors.As(err, &e) {
		return "", false
	}
	for _, words := range []string{
		"container process: exec:", "executable file", "chdir to cwd", "unable to find user",
		"no matching entries in passwd file", "exec format error",
	} {
		if strings.Contains(e.Message, words) {
			return e.Message, true
		}
	}
	return "", false
}

func (c *container) refuse(detail string) error {
	const maxDetail = 1000
	return c.dir.write("exit.json", executor.Exit{
		Kind: executor.ExitRefused, Code: -1, Ended: time.Now().UTC(),
		Detail: detail[:min(len(detail), maxDetail)], Stopped: c.dir.marked("stop"),
	})
}
