package ledger

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
)

// snapshot begins to write the state down after SnapshotEvery transactions: frozen between two
// blocks, written beside the next ones, never two at once. A failure is told and costs nothing
// but a slower start.
func (c *Chain) snapshot(ctx context.Context) {
	if c.deps.Snapshots == nil || c.config.SnapshotEvery < 0 ||
		c.unsnapped < c.config.SnapshotEvery {
		return
	}
	select {
	case c.snapping <- struct{}{}:
	default:
		return // the last one is still being written
	}
	write := c.freeze()
	c.helpers.Go(func() {
		write(ctx)
		<-c.snapping
	})
}

// snapshotAtEnd makes the next start quick.
func (c *Chain) snapshotAtEnd(ctx context.Context) {
	if c.deps.Snapshots == nil || c.config.SnapshotEvery < 0 || c.unsnapped == 0 {
		return
	}
	c.snapping <- struct{}{}
	c.freeze()(ctx)
	<-c.snapping
}

// freeze returns the function that writes the state down as it is now. The list of headers is the
// one that the head's own history root commits to: without the head.
func (c *Chain) freeze() func(context.Context) {
	c.unsnapped = 0
	frozen, height := c.state.Freeze(), c.head.Header.Height
	list := binary.BigEndian.AppendUint64(nil, c.before.size)
	for _, node := range c.before.nodes {
		list = append(list, node[:]...)
	}
	return func(ctx context.Context) {
		began := c.clock()
		err := c.deps.Snapshots.Save(ctx, height, func(w io.Writer) error {
			if _, err := w.Write(list); err != nil {
				return fmt.Errorf("write the list of headers: %w", err)
			}
			_, err := frozen.WriteTo(w)
			return err
		})
		if err != nil {
			c.log.Error("snapshot not written", "chain", c.name, "height", height, "error", err)
			return
		}
		c.log.Info("snapshot written", "chain", c.name, "height", height,
			"took", c.clock().Sub(began))
	}
}
