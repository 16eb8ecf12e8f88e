package broker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/id"
)

// Bounds of who is remembered.
const (
	maxMembers   = 1024        // instances of one operator that logged in, the latest
	maxOperators = 4096        // operators whose instances logged in
	recountEvery = time.Minute // between counts while operators are at their bound
	recountTime  = 10 * time.Second
)

// roster tells which operator an instance belongs to: it proved that when it logged in. Of an
// operator with more instances than are remembered the earliest must log in again.
type roster struct {
	mu      sync.Mutex // guards what follows
	of      map[string]sig.AccountID
	members map[sig.AccountID][]string
}

func newRoster() *roster {
	return &roster{of: map[string]sig.AccountID{}, members: map[sig.AccountID][]string{}}
}

// note remembers an instance. An operator beyond the bound is not remembered.
func (r *roster) note(instance string, operator sig.AccountID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	members := r.members[operator]
	if was, known := r.of[instance]; known && was == operator ||
		len(members) == 0 && len(r.members) >= maxOperators {
		return
	}
	if len(members) >= maxMembers {
		delete(r.of, members[0])
		members = members[1:]
	}
	r.of[instance] = operator
	r.members[operator] = append(members, instance)
}

func (r *roster) operator(instance string) (sig.AccountID, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	operator, known := r.of[instance]
	return operator, known
}

// consumers counts what each operator's instances read from: an operator certifies as many
// instances as it likes, and each consumer costs the server memory and work for every event. Whose
// a consumer is stands in its description, which the warden alone writes.
type consumers struct {
	most   int
	now    func() time.Time
	recall func() (map[string]sig.AccountID, error) // all that exist, by stream and name

	mu      sync.Mutex // guards what follows
	of      map[string]sig.AccountID
	count   map[sig.AccountID]int
	counted time.Time
}

func newConsumers(most int, recall func() (map[string]sig.AccountID, error)) *consumers {
	return &consumers{most: most, now: time.Now, recall: recall}
}

// load counts what exists.
func (c *consumers) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.recount()
}

func (c *consumers) recount() error {
	all, err := c.recall()
	if err != nil {
		return fmt.Errorf("count consumers: %w", err)
	}
	c.of, c.count, c.counted = all, map[sig.AccountID]int{}, c.now()
	for _, operator := range all {
		c.count[operator]++
	}
	return nil
}

// admit reports whether the operator may have the consumer, and counts it. Those removed because
// nobody read from them are found out when an operator comes to its bound.
func (c *consumers) admit(operator sig.AccountID, named string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, known := c.of[named]; known && was == operator {
		return true, nil
	}
	if c.count[operator] >= c.most && c.now().Sub(c.counted) >= recountEvery {
		if err := c.recount(); err != nil {
			return false, err
		}
	}
	if c.count[operator] >= c.most {
		return false, nil
	}
	if was, known := c.of[named]; known {
		c.count[was]--
	}
	c.of[named] = operator
	c.count[operator]++
	return true, nil
}

// recall returns the consumers of all streams by stream and name. Own services' have no owner, nor
// have those of earlier releases until their instances open them again.
func recall(conn *nats.Conn, services []string) (map[string]sig.AccountID, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), recountTime)
	defer cancel()
	all := map[string]sig.AccountID{}
	for _, service := range services {
		stream, err := js.Stream(ctx, event.StreamName(service))
		if err != nil {
			return nil, fmt.Errorf("open stream of %s: %w", service, err)
		}
		list := stream.ListConsumers(ctx)
		for info := range list.Info() {
			operator, err := id.ParseBech32(id.Account, info.Config.Description)
			if err == nil {
				all[info.Stream+"."+info.Name] = operator
			}
		}
		if err := list.Err(); err != nil {
			return nil, fmt.Errorf("list consumers of %s: %w", service, err)
		}
	}
	return all, nil
}
