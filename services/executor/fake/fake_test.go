package fake_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/executortest"
	"github.com/united-containers/ucn/services/executor/fake"
)

type host struct{ *fake.Host }

func (h host) Open(*testing.T) executor.Driver { return h.Driver("exec-1") }
func (h host) Idle(*testing.T)                 { h.Wait() }

func TestDriver(t *testing.T) {
	h := fake.NewHost(fake.Options{})
	executortest.TestDriver(t, host{h}, executortest.GuestImage(t))
	h.Shutdown()
}

const image = "bafkreihddrhfp65j3gyy2qtc4rs4kfb5ciydggfcobmq5clojg72eb2qiu"

func TestHook(t *testing.T) {
	broken := errors.New("broken")
	var fault fake.Fault
	h := fake.NewHost(fake.Options{AnyImage: true, Hook: func(c fake.Call) fake.Fault {
		if c.Method != "Create" {
			return fake.Fault{}
		}
		return fault
	}})
	d := h.Driver("e")
	for _, f := range []struct {
		fault fake.Fault
		left  int
	}{{fake.Fault{Err: broken}, 0}, {fake.Fault{Err: broken, After: true}, 1}} {
		fault = f.fault
		_, err := d.Create(t.Context(), executortest.Spec(image, "a", "exit", "0"))
		if !errors.Is(err, broken) {
			t.Errorf("%+v: error %v", f.fault, err)
		}
		list, err := d.List(t.Context())
		if err != nil || len(list) != f.left {
			t.Errorf("%+v: %d containers left, %v, want %d", f.fault, len(list), err, f.left)
		}
	}
}

func TestUsageRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := fake.NewHost(fake.Options{AnyImage: true})
		defer h.Shutdown()
		c, err := h.Driver("e").Create(t.Context(), executortest.Spec(image, "a", "use", "500", "deaf"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wait := time.NewTimer(10 * time.Second)
		<-wait.C
		if err := c.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		wait.Reset(time.Hour)
		<-wait.C
		u, err := c.Usage(t.Context())
		if err != nil || u.CPU != 5*time.Second {
			t.Errorf("cpu %v, %v, want 5s: half a core for 10 s, and nothing while frozen", u.CPU, err)
		}
	})
}

func TestShutdownIsLost(t *testing.T) {
	h := fake.NewHost(fake.Options{AnyImage: true})
	c, err := h.Driver("e").Create(t.Context(), executortest.Spec(image, "a", "deaf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Shutdown()
	list, err := h.Driver("e").List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%d containers, %v", len(list), err)
	}
	if e, err := list[0].Wait(t.Context()); err != nil || e.Kind != executor.ExitLost {
		t.Errorf("exit %+v, %v", e, err)
	}
}
