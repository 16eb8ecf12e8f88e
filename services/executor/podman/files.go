package podman

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
)

// seccompSource is the profile that podman's packages install; ours is stricter.
const seccompSource = "/usr/share/containers/seccomp.json"

// configFiles returns what the engine of this instance reads, by path within the instance.
func (i *Instance) configFiles() (map[string]string, error) {
	profile, err := os.ReadFile(seccompSource)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing("the seccomp profile " + seccompSource)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the seccomp profile: %w", err)
	}
	strict, err := tighten(profile)
	if err != nil {
		return nil, fmt.Errorf("tightening %s: %w", seccompSource, err)
	}
	q := strconv.Quote
	conf := "[containers]\nlog_driver = \"k8s-file\"\n" +
		"[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nlock_type = \"file\"\n" +
		"num_locks = " + strconv.Itoa(numLocks) + "\nruntime = " + q(i.tools.runtimeName) + "\n" +
		"conmon_path = [" + q(i.tools.conmon) + "]\nno_pivot_root = false\n" +
		"[engine.runtimes]\n" + i.tools.runtimeName + " = [" + q(i.tools.runtime) + "]\n" +
		"[network]\nnetwork_backend = " + q(i.tools.network) + "\n" +
		"network_config_dir = " + q(i.path("networks")) + "\n"
	storage := "[storage]\ndriver = \"overlay\"\ngraphroot = " + q(i.path("root")) +
		"\nrunroot = " + q(i.runPath("run")) + "\n"
	return map[string]string{
		"containers.conf":  conf,
		"storage.conf":     storage,
		"registries.conf":  "unqualified-search-registries = []\n",
		"seccomp.json":     string(strict),
		"etc-hosts":        "127.0.0.1 localhost " + hostname + "\n::1 localhost " + hostname + "\n",
		"etc-hostname":     hostname + "\n",
		"etc-containerenv": "",
		// Images are checked by us, by digest, before they run.
		"home/.config/containers/policy.json": `{"default":[{"type":"insecureAcceptAnything"}]}`,
	}, nil
}

// numLocks bounds containers, running and not, of one instance.
const numLocks = 8192

// hostname is what every container believes it runs on.
const hostname = "ucn"

// denied are system calls that no container here needs and that have been ways out of one.
var denied = []string{
	"add_key", "bpf", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick",
	"io_uring_enter", "io_uring_register", "io_uring_setup", "keyctl", "kexec_load",
	"kexec_file_load", "mount", "mount_setattr", "move_mount", "name_to_handle_at",
	"open_by_handle_at", "open_tree", "perf_event_open", "pidfd_getfd", "pivot_root", "quotactl",
	"reboot", "request_key", "setns", "swapoff", "swapon", "syslog", "umount", "umount2",
	"unshare", "userfaultfd",
}

// Sockets that a container may make: of the families that its network namespace holds. All others,
// vsock first of all, lead out of it. socketcall, whose arguments a filter cannot see, is denied.
const (
	familyUnix, familyInet, familyInet6 = 1, 2, 10
	familyNetlink, netlinkRoute         = 16, 0
)

// cloneNewFlags are the CLONE_NEW* flags: clone may not make namespaces.
const cloneNewFlags = 0x7E02_0000

// Error numbers that a denied call answers.
const (
	errnoPerm  = 1
	errnoNoSys = 38
)

// tighten takes what is in denied out of a seccomp profile. clone3 answers ENOSYS, so that programs
// fall back to clone, whose flags a filter can see.
func tighten(profile []byte) ([]byte, error) {
	var p map[string]any
	if err := json.Unmarshal(profile, &p); err != nil {
		return nil, err
	}
	rules, ok := p["syscalls"].([]any)
	if !ok || len(rules) == 0 {
		return nil, errors.New("no syscalls in it")
	}
	kept := make([]any, 0, len(rules)+3)
	for _, r := range rules {
		rule, ok := r.(map[string]any)
		if !ok {
			return nil, errors.New("a rule is no object")
		}
		names, ok := rule["names"].([]any)
		if !ok {
			return nil, errors.New("a rule has no names")
		}
		names = slices.DeleteFunc(names, func(n any) bool {
			s, _ := n.(string)
			return s == "clone" || s == "socket" || slices.Contains(denied, s)
		})
		if rule["names"] = names; len(names) > 0 {
			kept = append(kept, rule)
		}
	}
	refused := slices.DeleteFunc(slices.Clone(denied), func(s string) bool { return s == "clone3" })
	for _, family := range []int{familyUnix, familyInet, familyInet6} {
		kept = append(kept, allow("socket", equal(0, family)))
	}
	kept = append(kept, allow("socket", equal(0, familyNetlink), equal(2, netlinkRoute)))
	p["syscalls"] = append(kept,
		map[string]any{"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": errnoPerm},
		map[string]any{"names": []string{"clone3"}, "action": "SCMP_ACT_ERRNO", "errnoRet": errnoNoSys},
		allow("clone", map[string]any{
			"index": 0, "value": cloneNewFlags, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ",
		}),
	)
	return json.Marshal(p)
}

// allow is a rule that lets a call pass whose arguments are all as said.
func allow(name string, args ...any) map[string]any {
	return map[string]any{"names": []string{name}, "action": "SCMP_ACT_ALLOW", "args": args}
}

func equal(index, value int) any {
	return map[string]any{"index": index, "value": value, "valueTwo": 0, "op": "SCMP_CMP_EQ"}
}
