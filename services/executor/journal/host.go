package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/services/executor"
)

// SaveHost implements executor.Journal.
func (j *Journal) SaveHost(
	ctx context.Context, s executor.HostState, events ...event.Event,
) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	raw, err := json.Marshal(&s)
	if err != nil {
		return fmt.Errorf("encode the host's state: %w", err)
	}
	return j.commit(events, func(b *pebble.Batch) error {
		return b.Set([]byte(keyHost), append([]byte{formatJSON}, raw...), nil)
	})
}

// Host implements executor.Journal.
func (j *Journal) Host(context.Context) (s executor.HostState, err error) {
	raw, closer, err := j.db.Get([]byte(keyHost))
	if errors.Is(err, pebble.ErrNotFound) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read the host's state: %w", err)
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	if len(raw) == 0 || raw[0] != formatJSON {
		return s, errors.New("the host's state in the journal has an unknown format")
	}
	if err := json.Unmarshal(raw[1:], &s); err != nil {
		return s, fmt.Errorf("decode the host's state: %w", err)
	}
	return s, nil
}
