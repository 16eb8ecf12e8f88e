package job

import (
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

func notBuilt(field, instead string) error {
	problem := "is not served by this network yet"
	if instead != "" {
		problem += ": " + instead
	}
	return &FieldError{Field: field, Problem: problem, Kind: ErrNotBuilt}
}

// checkNotBuilt refuses by name what the specification can say and the network does not serve yet.
func checkNotBuilt(s *jobv1.JobSpec) error {
	asked := []struct {
		field   string
		instead string
		is      bool
	}{
		{"volumes", "use inputs and outputs", len(s.GetVolumes()) > 0},
		{"ports", "", len(s.GetPorts()) > 0},
		{"health", "", s.GetHealth() != nil},
		{"trigger.at", "leave the trigger out to run once, now", s.GetTrigger().GetAt() != nil},
		{"trigger.cron", "leave the trigger out to run once, now", s.GetTrigger().GetCron() != nil},
		{"trigger.call", "leave the trigger out to run once, now", s.GetTrigger().GetCall() != nil},
		{"verify", "", s.GetVerify() != nil},
		{"disconnect.policy", "", beyond(s.GetDisconnect().GetPolicy(),
			jobv1.DisconnectPolicy_DISCONNECT_POLICY_BEST)},
		{"restart", "", beyond(s.GetRestart(), jobv1.Restart_RESTART_ALWAYS)},
		{"capabilities", "", len(s.GetCapabilities()) > 0},
		{"budget", "", s.GetBudget() != nil},
		{"isolation", "", beyond(s.GetIsolation(), jobv1.Isolation_ISOLATION_STRICT)},
		{"egress", "containers have no network yet",
			beyond(s.GetEgress(), jobv1.Egress_EGRESS_NONE)},
		{"wake", "", s.GetWake() != nil},
		{"pause_marker", "", s.GetPauseMarker() != ""},
		{"keeper", "", len(s.GetKeeper()) > 0},
		{"devices", "", len(s.GetDevices()) > 0},
	}
	for _, a := range asked {
		if a.is {
			return notBuilt(a.field, a.instead)
		}
	}
	return nil
}

// beyond tells whether an enum's value is outside 0 to last. On the wire it may be negative.
func beyond[T ~int32](value, last T) bool { return value < 0 || value > last }
