package ledger

import (
	"context"
	"encoding/binary"
	"io"
)

// snapshot writes the state down after SnapshotEvery transactions. It runs between two blocks; a
// failure is told and costs nothing but a slower start.
func (c *Chain) snapshot(ctx context.Context) {
	if c.deps.Snapshots == nil || c.config.SnapshotEvery < 0 ||
		c.unsnapped < c.config.SnapshotEvery {
		return
	}
	c.saveSnapshot(ctx)
}

// snapshotAtEnd makes the next start quick.
func (c *Chain) snapshotAtEnd(ctx context.Context) {
	if c.deps.Snapshots != nil && c.config.SnapshotEvery > 0 && c.unsnapped > 0 {
		c.saveSnapshot(ctx)
	}
}

func (c *Chain) saveSnapshot(ctx context.Context) {
	began, height := c.clock(), c.head.Header.Height
	err := c.deps.Snapshots.Save(ctx, height, c.writeSnapshot)
	c.unsnapped = 0
	if err != nil {
		c.log.Error("snapshot not written", "chain", c.name, "height", height, "error", err)
		return
	}
	c.log.Info("snapshot written", "chain", c.name, "height", height,
		"took", c.clock().Sub(began))
}

// writeSnapshot writes what restore reads. The list of headers is the one that the head's own
// history root commits to: without the head.
func (c *Chain) writeSnapshot(w io.Writer) error {
	b := binary.BigEndian.AppendUint64(nil, c.before.size)
	for _, node := range c.before.nodes {
		b = append(b, node[:]...)
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return writeState(c.state, w)
}
