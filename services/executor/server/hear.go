package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/token"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	"github.com/united-containers/ucn/services/executor"
)

// Bounds of what a request may name.
const (
	maxIDBytes   = 32 // of a run or attempt id
	maxReasonLen = 1 << 10
	maxTokenLen  = 4 << 10
)

func hashOf(raw []byte) [32]byte { return sha256.Sum256(raw) }

func malformed(format string, args ...any) error {
	return fault.New(fault.InvalidArgument, executor.ReasonBadArgument, format, args...)
}

// fixed reads an id, key or hash of exactly 32 bytes.
func fixed[T ~[32]byte](name string, raw []byte) (T, error) {
	if len(raw) != 32 {
		return T{}, malformed("%s has %d bytes, want 32", name, len(raw))
	}
	return T(raw), nil
}

// named reads the id of a run or an attempt, which its scheduler chose.
func named[T ~string](name string, raw []byte) (T, error) {
	if len(raw) == 0 || len(raw) > maxIDBytes {
		return "", malformed("%s has %d bytes, want 1 to %d", name, len(raw), maxIDBytes)
	}
	return T(hex.EncodeToString(raw)), nil
}

// heardAsk reads a question. The revision is verified by its caller already.
func heardAsk(m *executorv1.AskRequest, id job.ID, from executor.Peer) (executor.Ask, error) {
	ask := executor.Ask{From: from, Job: executor.JobID(id), Revision: executor.Hash(id)}
	var errs [6]error
	ask.Run, errs[0] = named[executor.RunID]("run", m.GetRun())
	ask.Attempt, errs[1] = named[executor.AttemptID]("attempt", m.GetAttempt())
	ask.Offer, errs[2] = fixed[executor.Hash]("offer_hash", m.GetOfferHash())
	ask.Terms, errs[3] = heardTerms(m.GetTerms())
	if len(m.GetContinues()) > 0 {
		ask.Continues, errs[5] = named[executor.AttemptID]("continues", m.GetContinues())
	}
	ask.Spec, errs[4] = heardSpec(m.GetRevision().GetRevision().GetSpec())
	if array := m.GetRevision().GetRevision().GetSpec().GetArray(); array != nil {
		if m.GetTask() >= array.GetCount() {
			return ask, malformed("task is %d, the array has %d", m.GetTask(), array.GetCount())
		}
		ask.Spec.Env = append(ask.Spec.Env, fmt.Sprintf("%s=%d", job.EnvTaskIndex, m.GetTask()),
			fmt.Sprintf("%s=%d", job.EnvTaskCount, array.GetCount()))
	}
	return ask, errors.Join(errs[:]...)
}

func heardTerms(m *marketv1.LeaseTerms) (executor.Terms, error) {
	t := executor.Terms{
		Slot: m.GetSlot(), Epoch: m.GetEpoch(), Budget: m.GetBudget(), Trust: m.GetTrust(),
		Holdback: m.GetHoldback(), ClaimWindow: m.GetClaimWindow(), PlaceBy: m.GetPlaceBy(),
		Until: m.GetUntil(),
	}
	var err1, err2 error
	t.Escrow, err1 = fixed[executor.EscrowID]("terms.escrow", m.GetEscrow())
	t.Subject, err2 = fixed[executor.JobID]("terms.subject", m.GetSubject())
	if raw := m.GetSupersedes(); len(raw) > 0 {
		var err error
		if t.Supersedes, err = fixed[executor.LeaseID]("terms.supersedes", raw); err != nil {
			return t, err
		}
	}
	for _, raw := range m.GetAckKeys() {
		key, err := fixed[sig.PublicKey]("terms.ack_keys", raw)
		if err != nil {
			return t, err
		}
		t.AckKeys = append(t.AckKeys, key)
	}
	return t, errors.Join(err1, err2)
}

// heardSpec reads a specification that job.Check found good. What this executor does not serve is
// named in Unserved.
func heardSpec(m *jobv1.JobSpec) (executor.JobSpec, error) {
	owner, err := fixed[sig.AccountID]("owner", m.GetOwner())
	s := executor.JobSpec{
		Owner: owner, Chain: m.GetChain(), Name: m.GetName(),
		Image:     executor.ImageID(job.ImageCID(m.GetImage())),
		Reference: m.GetImage().GetReference(), Command: m.GetCommand(), Args: m.GetArgs(),
		Secrets: m.GetSecrets(), Isolation: heardIsolation(m.GetIsolation()),
		Resources: executor.Resources{
			CPUMilli: m.GetResources().GetCpuMilli(), Memory: m.GetResources().GetMemory(),
			Disk: m.GetResources().GetDisk(), Network: m.GetResources().GetNetwork(),
		},
		Platforms: m.GetPlacement().GetPlatforms(), Unserved: unserved(m),
		RunTime: time.Duration(min(m.GetLimits().GetRunTimeMs(), job.MaxRunTimeMS)) * time.Millisecond,
		MaxRate: m.GetPayment().GetMaxRate(),
		MaxNotice: time.Duration(min(m.GetPayment().GetMaxNoticeMs(), job.MaxNoticeMS)) *
			time.Millisecond,
		KeepOriginal: m.GetDisconnect().GetPolicy() ==
			jobv1.DisconnectPolicy_DISCONNECT_POLICY_KEEP_ORIGINAL,
	}
	for _, v := range m.GetEnv() {
		s.Env = append(s.Env, v.GetName()+"="+v.GetValue())
	}
	for _, in := range m.GetInputs() {
		s.Inputs = append(s.Inputs, executor.Input{CID: in.GetCid(), Path: in.GetPath()})
	}
	for _, out := range m.GetOutputs() {
		s.Outputs = append(s.Outputs, out.GetPath())
	}
	if p := m.GetPayment().GetCap(); p != nil {
		most := executor.PricesOf(price.PricesFromPB(p))
		s.Cap = &most
	}
	var err1, err2 error
	s.Allow, err1 = accounts(m.GetPlacement().GetOperatorsAllow())
	s.Deny, err2 = accounts(m.GetPlacement().GetOperatorsDeny())
	return s, errors.Join(err, err1, err2)
}

func accounts(raw [][]byte) (list []sig.AccountID, err error) {
	for _, one := range raw {
		id, err := fixed[sig.AccountID]("placement.operators", one)
		if err != nil {
			return nil, err
		}
		list = append(list, id)
	}
	return list, nil
}

func heardIsolation(i jobv1.Isolation) executor.Isolation {
	if i == jobv1.Isolation_ISOLATION_STRICT {
		return executor.IsolationStrict
	}
	return executor.IsolationStandard
}

// unserved names the fields that are set and that this executor does not serve. job.Check refuses
// what no executor of the network serves; this list holds even if that one grows first.
func unserved(m *jobv1.JobSpec) (names []string) {
	kind := m.GetTrigger().GetKind()
	_, once := kind.(*jobv1.Trigger_Once)
	_, always := kind.(*jobv1.Trigger_Always)
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"trigger", kind != nil && !once && !always}, {"volumes", len(m.GetVolumes()) > 0},
		{"ports", len(m.GetPorts()) > 0}, {"health", m.GetHealth() != nil},
		{"devices", len(m.GetDevices()) > 0}, {"wake", m.GetWake() != nil},
		{"egress", m.GetEgress() > jobv1.Egress_EGRESS_NONE},
		{"isolation", m.GetIsolation() > jobv1.Isolation_ISOLATION_STRICT},
		{"capabilities", len(m.GetCapabilities()) > 0}, {"budget", m.GetBudget() != nil},
		{"verify", m.GetVerify().GetCopies() > 1}, {"keeper", len(m.GetKeeper()) > 0},
		{"pause_marker", m.GetPauseMarker() != ""},
		{"image", job.ImageCID(m.GetImage()) == ""},
		{"payment.cap.model", m.GetPayment().GetCap().GetModel() >=
			jobv1.PriceModel_PRICE_MODEL_CFPS},
	} {
		if f.set {
			names = append(names, f.name)
		}
	}
	return names
}

// heardTask reads a delivered task. The revision is verified by its caller already.
func heardTask(m *executorv1.TaskRequest, id job.ID, from executor.Peer) (executor.Task, error) {
	t := executor.Task{
		From: from, Job: executor.JobID(id), Revision: executor.Hash(id),
		StorageToken: m.GetStorageToken(), LogOffset: m.GetLogOffset(),
	}
	if len(t.StorageToken) > maxTokenLen {
		return t, malformed("storage_token has %d bytes, at most %d", len(t.StorageToken), maxTokenLen)
	}
	var errs [3]error
	t.Run, errs[0] = named[executor.RunID]("run", m.GetRun())
	t.Attempt, errs[1] = named[executor.AttemptID]("attempt", m.GetAttempt())
	t.Lease, errs[2] = fixed[executor.LeaseID]("lease", m.GetLease())
	for _, s := range m.GetSecrets() {
		if t.Secrets == nil {
			t.Secrets = map[string]string{}
		}
		if _, twice := t.Secrets[s.GetName()]; twice {
			return t, malformed("secret %.64q comes twice", s.GetName())
		}
		t.Secrets[s.GetName()] = string(s.GetValue())
	}
	for _, c := range m.GetRegistryCredentials() {
		t.Registry = append(t.Registry, executor.RegistryCredential{
			Host: c.GetHost(), Username: c.GetUsername(), Password: string(c.GetPassword()),
		})
	}
	return t, errors.Join(errs[:]...)
}

// heardToken returns when a token for storage ends, zero without one. It must be a token of the
// job's owner for files: outputs and logs are stored under the account that it names. Whether it is
// genuine is for storage to judge.
func heardToken(text string, owner []byte) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	claims, err := token.Decode(text)
	refused := func(why string) (time.Time, error) {
		return time.Time{}, fault.New(fault.PermissionDenied, executor.ReasonToken,
			"storage_token: %s", why).Because(err)
	}
	switch {
	case err != nil:
		return refused("it is no token")
	case !bytes.Equal(claims.Account[:], owner):
		return refused("it is of another account than the job")
	case !slices.ContainsFunc(claims.Scopes, forFiles):
		return refused("it has no scope for files")
	}
	return claims.NotAfter, nil
}

// forFiles tells scopes that storage looks at.
func forFiles(scope string) bool { return scope == "file" || strings.HasPrefix(scope, "file:") }

func heardAck(m *executorv1.AcknowledgeRequest) (executor.LeaseID, executor.Ack, error) {
	lease, err := fixed[executor.LeaseID]("lease", m.GetLease())
	if err != nil {
		return lease, executor.Ack{}, err
	}
	n := m.GetNote()
	var errs [4]error
	var ack executor.Ack
	ack.Note.Lease, errs[0] = fixed[executor.LeaseID]("note.lease", n.GetLease())
	ack.Note.Revision, errs[1] = fixed[executor.Hash]("note.revision", n.GetRevision())
	ack.Note.UsageHash, errs[2] = fixed[executor.Hash]("note.usage_hash", n.GetUsageHash())
	ack.Note.Upto, ack.Note.Cumulative = n.GetUpto(), n.GetCumulative()
	ack.Index = m.GetCountersignature().GetIndex()
	ack.Signature, errs[3] = sig.ParseSignature(m.GetCountersignature().GetSignature())
	if errs[3] != nil {
		errs[3] = malformed("countersignature: %v", errs[3])
	}
	if !bytes.Equal(n.GetLease(), m.GetLease()) {
		return lease, ack, malformed("the note is of another lease")
	}
	return lease, ack, errors.Join(errs[:]...)
}

func heardStop(m *executorv1.StopRequest, from executor.Peer) (executor.StopAsk, error) {
	ask := executor.StopAsk{From: from, Reason: m.GetReason()}
	if len(ask.Reason) > maxReasonLen {
		return ask, malformed("reason has %d bytes, at most %d", len(ask.Reason), maxReasonLen)
	}
	if m.GetGraceMs() > uint64(executor.MaxStopAsk.Milliseconds()) {
		return ask, malformed("grace_ms is %d, at most %d", m.GetGraceMs(),
			executor.MaxStopAsk.Milliseconds())
	}
	ask.Grace = time.Duration(m.GetGraceMs()) * time.Millisecond
	var err1, err2 error
	ask.Job, err1 = fixed[executor.JobID]("job", m.GetJob())
	if len(m.GetAttempt()) > 0 {
		ask.Attempt, err2 = named[executor.AttemptID]("attempt", m.GetAttempt())
	}
	return ask, errors.Join(err1, err2)
}

func heardLogs(m *executorv1.LogsRequest, from executor.Peer) (executor.LogsAsk, error) {
	ask := executor.LogsAsk{From: from, Offset: m.GetOffset(), Follow: m.GetFollow()}
	var err1, err2 error
	ask.Job, err1 = fixed[executor.JobID]("job", m.GetJob())
	if len(m.GetAttempt()) > 0 {
		ask.Attempt, err2 = named[executor.AttemptID]("attempt", m.GetAttempt())
	}
	return ask, errors.Join(err1, err2)
}

func heardStats(m *executorv1.StatsRequest, from executor.Peer) (executor.StatsAsk, error) {
	ask := executor.StatsAsk{From: from}
	var err1, err2 error
	ask.Job, err1 = fixed[executor.JobID]("job", m.GetJob())
	if len(m.GetAttempt()) > 0 {
		ask.Attempt, err2 = named[executor.AttemptID]("attempt", m.GetAttempt())
	}
	return ask, errors.Join(err1, err2)
}
