package broker_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/cert"
)

// TestConsumersPerOperator: an operator has so many consumers however many instances it certifies,
// also after the broker was restarted, and another operator has its own.
func TestConsumersPerOperator(t *testing.T) {
	cfg := config(t)
	cfg.Consumers = 2
	deps := broker.Deps{Instances: cert.Verifier{Chains: []string{"main"}}}
	for round := range 2 {
		b, stop := startIn(t, cfg, deps)
		for n := byte(1); n <= 2; n++ {
			m := admittedOf(t, b, 1, n)
			m.follow(t)
			m.follow(t) // the same again counts once
		}
		third := admittedOf(t, b, 1, 3)
		_, err := third.js.CreateOrUpdateConsumer(t.Context(), stream, jetstream.ConsumerConfig{
			Durable: third.name, AckPolicy: jetstream.AckExplicitPolicy,
			Description: "ucn1forged",
		})
		var refused *jetstream.APIError
		if !errors.As(err, &refused) || refused.Code != 429 {
			t.Errorf("round %d: a consumer beyond the bound: %v", round, err)
		}
		other := admittedOf(t, b, 2, 1)
		other.follow(t)
		other.say(t, "still heard")
		stop()
	}
}

// TestOwnServicesAreNotCounted: what runs in the broker's process reads as much as it likes.
func TestOwnServicesAreNotCounted(t *testing.T) {
	cfg := config(t)
	cfg.Consumers = 1
	b := start(t, cfg, broker.Deps{})
	conn, err := b.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"executor-a", "executor-b", "executor-c"} {
		_, err := js.CreateOrUpdateConsumer(t.Context(), stream, jetstream.ConsumerConfig{
			Durable: name, AckPolicy: jetstream.AckExplicitPolicy,
		})
		if err != nil {
			t.Error(err)
		}
	}
}
