// Package clitest is a network in memory for tests of the client commands: a real chain of one
// transaction per block, a scheduler with one executor that follows a script, storage, and a real
// broker. The commands reach it over kit/rpc's Pipe and sealed bus messages, as they reach any.
package clitest

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/session"
	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event/refetch"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/network"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// Network is everything a client needs.
type Network struct {
	Ledger  *Ledger
	Market  *Market
	Desk    *Desk
	Storage *Storage

	said                said
	operator            sig.PrivateKey
	scheduler, executor bus.Identity
	pipe                *rpc.Pipe
	broker              *broker.Broker
}

// Start runs a network on which owner has 10,000 UCN; the executor follows the script. It stops
// when the test ends.
func Start(t testing.TB, owner sig.PrivateKey, script Script) *Network {
	t.Helper()
	n := &Network{operator: sig.FromSeed([32]byte{100}), pipe: &rpc.Pipe{}, Storage: &Storage{}}
	n.Desk = &Desk{n: n}
	n.scheduler = n.instance(t, 101, "scheduler")
	n.executor = n.instance(t, 102, "executor")
	var err error
	n.Ledger, err = NewLedger(block.LocalAccounts{
		Faucet: sig.AccountOfKey(n.executor.Key.Public()),
		Wallet: sig.AccountOfKey(owner.Public()),
		Operators: [2]sig.AccountID{
			n.Operator(), sig.AccountOfKey(n.scheduler.Key.Public()),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Market = &Market{
		n: n, script: script, jobs: map[job.ID]*schedulerv1.Job{},
		changed: make(chan struct{}), stop: make(chan struct{}),
	}
	tokens := &token.Verifier{Audience: n.Operator(), Chains: []string{block.Main}}
	n.serve(t, tokens)
	n.connectExecutor(t, tokens)
	return n
}

// OperatorKey is the one operator's.
func (n *Network) OperatorKey() sig.PrivateKey { return n.operator }

// Operator is the one operator's account.
func (n *Network) Operator() sig.AccountID { return sig.AccountOfKey(n.operator.Public()) }

// instance makes the keys and the certificate of an instance.
func (n *Network) instance(t testing.TB, seed byte, service string) bus.Identity {
	t.Helper()
	key := sig.FromSeed([32]byte{seed})
	seal, err := keys.NewSealKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := cert.Issue(keys.SingleSigner(n.operator), cert.Certificate{
		Chain: block.Main, InstanceKey: key.Public(), SealKey: seal.Public(),
		Services: []string{service}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), Serial: uint64(seed),
	})
	if err != nil {
		t.Fatal(err)
	}
	return bus.Identity{Key: key, Seal: seal, Certificate: raw, Service: service}
}

func certificateOf(i bus.Identity) *identityv1.Certificate {
	m := &identityv1.Certificate{}
	if err := canon.Unmarshal(i.Certificate, m); err != nil {
		panic("clitest: " + err.Error()) // cert.Issue made it
	}
	return m
}

func (n *Network) serve(t testing.TB, tokens rpc.Authenticator) {
	t.Helper()
	for _, name := range []string{"ledger", "scheduler", "storage"} {
		listener, err := n.pipe.Listen(name)
		if err != nil {
			t.Fatal(err)
		}
		server, err := rpc.NewServer(rpc.DefaultServer(), rpc.ServerDeps{
			Listener: listener, Auth: tokens, Log: kittest.NewLog(t).Logger,
			Public: []string{
				"/ucn.ledger.v1.LedgerService/", "/ucn.scheduler.v1.SchedulerService/ListOffers",
				"/ucn.scheduler.v1.SchedulerService/GetScheduler",
				"/ucn.scheduler.v1.SchedulerService/GetMarket",
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ledgerv1.RegisterLedgerServiceServer(server, n.Ledger)
		schedulerv1.RegisterSchedulerServiceServer(server, n.Market)
		storagev1.RegisterStorageServiceServer(server, n.Storage)
		kittest.Run(t, server)
	}
}

func (n *Network) connectExecutor(t testing.TB, tokens rpc.Authenticator) {
	t.Helper()
	cfg := broker.Default()
	cfg.Dir, cfg.Listen = t.TempDir(), "127.0.0.1:0"
	var err error
	if n.broker, err = broker.New(cfg, broker.Deps{Tokens: tokens}); err != nil {
		t.Fatal(err)
	}
	kittest.Run(t, n.broker)
	conn, err := n.broker.Connect("executor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	server, err := bus.NewServer(conn, n.executor, bus.Authenticator{Tokens: tokens}, bus.Options{})
	if err != nil {
		t.Fatal(err)
	}
	bus.ServerStream(server, "executor.v1/Task", n.Market.task)
	bus.Unary(server, "executor.v1/Acknowledge", n.Market.acknowledge)
	n.Desk.serve(server)
	own, _, err := cert.Decode(n.executor.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	refetch.Serve(server, own, &n.said)
	kittest.Run(t, server)
}

// File is the network file.
func (n *Network) File() network.File {
	anchor := n.Ledger.Genesis.Anchor()
	return network.File{
		API: "127.0.0.1:1", Bus: n.broker.URL(), Chain: block.Main,
		Anchor:   hex.EncodeToString(anchor[:]),
		Operator: id.Bech32(id.Account, n.Operator()),
	}
}

// Attach makes a session's configuration reach this network.
func (n *Network) Attach(cfg session.Config) session.Config {
	cfg.Dial = func(deps rpc.ClientDeps) (rpc.Dialer, error) {
		return rpc.NewPipeDialer(n.pipe, deps), nil
	}
	cfg.Broker = func(login bus.Login) (*nats.Conn, error) {
		return bus.Connect(n.broker.URL(), "client", login, nil)
	}
	return cfg
}

// SendAsOperator executes operations of the operator's account.
func (n *Network) SendAsOperator(t testing.TB, operations ...tx.Operation) {
	t.Helper()
	if r := n.send(n.operator, operations...); r.GetReceipt().GetStatus() != 1 {
		t.Fatalf("the operator's transaction: %v", r)
	}
}

// send signs and executes operations of an account that the network itself plays.
func (n *Network) send(key sig.PrivateKey, operations ...tx.Operation) *ledgerv1.SubmitResult {
	account := sig.AccountOfKey(key.Public())
	held, _ := n.Ledger.state.Account(account)
	signed, err := tx.Sign(tx.Body{
		Chain: block.Main, Account: account, Nonce: held.Nonce, Fee: block.UCN,
		ValidUntil: n.Ledger.now() + 60_000, Operations: operations,
	}, n.Ledger.Genesis.Anchor(), sig.SingleKey(key.Public()), held.Keys.IsZero(), key)
	if err != nil {
		return &ledgerv1.SubmitResult{ErrorReason: "MALFORMED", ErrorMessage: err.Error()}
	}
	return n.Ledger.Apply(signed.Append(nil))
}
