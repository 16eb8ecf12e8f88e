package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/durable"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/keys"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
)

func (a *app) eventCommand() *cobra.Command {
	return group("event", "Signed events of instances: their list, proofs of forks, epochs",
		a.eventList(), a.eventVerify(), a.eventEpoch())
}

// eventProof is what event verify prints.
type eventProof struct {
	Kind     string              `json:"kind"` // fork or epoch
	Chain    string              `json:"chain"`
	Operator string              `json:"operator"`
	Instance string              `json:"instance"`
	Topic    string              `json:"topic,omitempty"`
	Epoch    uint64              `json:"epoch"`
	Seq      uint64              `json:"seq,omitempty"`
	Hashes   []string            `json:"hashes,omitempty"`
	Marks    map[string]markLine `json:"marks,omitempty"`
	Time     time.Time           `json:"time"`
}

type markLine struct {
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

func (a *app) eventVerify() *cobra.Command {
	offline := false
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Verify a proof that an instance signed two histories",
		Long: `Verify a proof of a fork, such as a scheduler keeps in its folder "forks", or an operator's
word that opens a new epoch. A fork is two events for one place, both signed by the instance:
whoever holds the file can show it to anybody.

Which keys of the operator are in force is asked of the ledger; with --offline the operator's first
keys are believed.`,
		Example: "  ucn event verify forks/abc-job-1.fork", Args: args(cobra.ExactArgs(1)),
	}
	judge := func(ctx context.Context, sets keys.Sets, list []string) error {
		raw, err := readBounded(list[0], event.MaxForkProof)
		if err != nil {
			return err
		}
		p, err := verifyEvent(ctx, raw, sets)
		if err != nil {
			return err
		}
		return a.emit(p, p.print)
	}
	online := a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
		return judge(ctx, l.Sets(), list)
	})
	cmd.RunE = func(cmd *cobra.Command, list []string) error {
		if offline {
			return judge(cmd.Context(), nil, list)
		}
		return online(cmd, list)
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "believe the operator's first keys")
	return cmd
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usage(err)
	}
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	return raw, errors.Join(err, f.Close())
}

// verifyEvent tells a fork's proof from an epoch's notice by trying.
func verifyEvent(ctx context.Context, raw []byte, sets keys.Sets) (*eventProof, error) {
	fork, failed := event.VerifyFork(ctx, raw, cert.Verifier{Chains: chainsOf(raw), Sets: sets})
	if failed == nil {
		body := fork.Second.Body
		return &eventProof{
			Kind: "fork", Chain: fork.Certificate.Chain, Operator: accountText(fork.Certificate.Operator),
			Instance: subject.Instance(fork.Line.Instance), Topic: string(fork.Line.Topic),
			Epoch: body.Epoch, Seq: body.Seq, Time: fork.Second.Time(),
			Hashes: []string{
				fmt.Sprintf("%x", fork.First.Hash[:]), fmt.Sprintf("%x", fork.Second.Hash[:]),
			},
		}, nil
	}
	epoch, err := event.VerifyEpoch(ctx, raw, sets)
	if err != nil {
		return nil, fmt.Errorf("neither a fork's proof (%w) nor a new epoch (%w)", failed, err)
	}
	p := &eventProof{
		Kind: "epoch", Chain: epoch.Chain, Operator: accountText(epoch.Operator), Epoch: epoch.Number,
		Instance: subject.Instance(epoch.Instance), Time: epoch.Time, Marks: map[string]markLine{},
	}
	for topic, mark := range epoch.Marks {
		p.Marks[string(topic)] = markLine{mark.Epoch, mark.Seq}
	}
	return p, nil
}

// chainsOf returns the chain that a proof's certificate names: which chain that is matters to the
// reader, not to the proof.
func chainsOf(raw []byte) []string {
	m := new(eventv1.ForkProof)
	if err := canon.Unmarshal(raw, m); err != nil {
		return nil // VerifyFork says why
	}
	return []string{m.GetCertificate().GetBody().GetChain()}
}

func (p *eventProof) print(w io.Writer) {
	if p.Kind == "fork" {
		printf(w, "verified\tthe instance signed two histories\n")
	} else {
		printf(w, "verified\tthe operator opened epoch %d after a restore\n", p.Epoch)
	}
	printf(w, "operator\t%s on the chain %s\ninstance\t%s\n", p.Operator, p.Chain, p.Instance)
	if p.Topic != "" {
		printf(w, "place\ttopic %s, epoch %d, number %d\n", p.Topic, p.Epoch, p.Seq)
	}
	for _, hash := range p.Hashes {
		printf(w, "signed\t%s\n", hash)
	}
	for _, topic := range event.Topics() {
		if mark, ok := p.Marks[string(topic)]; ok {
			printf(w, "goes on\ttopic %s behind number %d of epoch %d\n", topic, mark.Seq, mark.Epoch)
		}
	}
	printf(w, "time\t%s\n", p.Time.Local().Format("2006-01-02 15:04:05"))
}

// restored are the flags of event epoch.
type restored struct {
	instance instance.Config
	service  string
	out      string
}

func (a *app) eventEpoch() *cobra.Command {
	o := restored{}
	cmd := &cobra.Command{
		Use: "epoch", Short: "Open a new epoch of an instance that was restored from a backup",
		Long: `Write an operator's word that one of its instances was restored from a backup. Without it
the restored instance says nothing: what it would sign contradicts what it said after the backup,
and every peer would stop to follow it.

The wallet must be the operator's. How far the instance's events had come is read from the broker,
with the instance's own key. Name the file that is written in the service's configuration
(instance.epoch), and start the service.`,
		Example: "  ucn event epoch --wallet operator --service executor --key exec.key \\\n" +
			"    --certificate exec.pem --broker tls://broker.example:7622 -o epoch.notice",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), a.flags.timeout)
			defer cancel()
			return a.openEpoch(ctx, &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.service, "service", "", "what the instance is: executor, scheduler, ...")
	f.StringVar(&o.instance.Key, "key", "", "its key file")
	f.StringVar(&o.instance.Certificate, "certificate", "", "its certificate (PEM)")
	f.StringVar(&o.instance.Broker, "broker", "", "NATS address of the broker")
	f.StringVarP(&o.out, "output", "o", "", "file to write")
	return needing(cmd, "service", "key", "certificate", "broker", "output")
}

func (a *app) openEpoch(ctx context.Context, o *restored) error {
	operator, err := a.openWallet()
	if err != nil {
		return err
	}
	key, certificate, err := instanceFiles(o)
	if err != nil {
		return err
	}
	signer, err := event.NewSigner(key, certificate, o.service)
	if err != nil {
		return err
	}
	c, _, err := cert.Decode(certificate)
	if err != nil {
		return err
	}
	word := keys.SingleSigner(operator)
	if word.Account != c.Operator {
		return fmt.Errorf("the wallet is %s, the instance's operator is %s", accountText(word.Account),
			accountText(c.Operator))
	}
	marks, err := marksAt(ctx, o.instance.Broker, key, certificate, signer.Address())
	if err != nil {
		return err
	}
	if len(marks) == 0 {
		return errors.New("the broker holds no event of this instance: it needs no new epoch")
	}
	e := event.Epoch{
		Chain: c.Chain, Instance: c.InstanceKey, Number: event.FirstEpoch + 1, Marks: marks,
		Time: a.Now(),
	}
	for _, mark := range marks {
		e.Number = max(e.Number, mark.Epoch+1)
	}
	notice, err := event.IssueEpoch(word, e)
	if err != nil {
		return err
	}
	if err := durable.Create(o.out, notice, 0o644); errors.Is(err, fs.ErrExist) {
		return usagef("%s exists", o.out)
	} else if err != nil {
		return err
	}
	p, err := verifyEvent(ctx, notice, nil)
	if err != nil {
		return err
	}
	return a.emit(p, p.print)
}

func instanceFiles(o *restored) (key sig.PrivateKey, certificate []byte, err error) {
	stored, err := keys.Read(o.instance.Key)
	if err != nil {
		return key, nil, err
	}
	if key, err = stored.Signing(nil); err != nil {
		return key, nil, err
	}
	text, err := os.ReadFile(o.instance.Certificate)
	if err != nil {
		return key, nil, usage(err)
	}
	certificate, err = cert.ParseText(text)
	return key, certificate, err
}

// marksAt reads the newest places of an instance's lines, in its name.
func marksAt(
	ctx context.Context, broker string, key sig.PrivateKey, certificate []byte, at subject.Address,
) (map[event.Topic]event.Head, error) {
	login, err := bus.InstanceLogin(key, certificate)
	if err != nil {
		return nil, err
	}
	conn, err := bus.Connect(broker, "epoch", login, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.FlushWithContext(ctx); err != nil {
		return nil, unreachable(fmt.Errorf("the broker at %s does not answer: %w", broker, err))
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	return event.Marks(ctx, js, at)
}
