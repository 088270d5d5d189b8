// Go's own profiles.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	mode, n := os.Args[1], 0
	if len(os.Args) > 2 {
		n, _ = strconv.Atoi(os.Args[2])
	}
	switch mode {
	case "tasks":
		tasks(n)
		// The whole process's CPU time: nothing else runs.
		fmt.Printf("profile_ms %.3f\n", best(3, func() { write(0) }))
	case "text":
		tasks(n)
		fmt.Printf("text_ms %.3f\n", best(1, func() { write(2) }))
	case "lock":
		runtime.GOMAXPROCS(1)
		fmt.Printf("plain_ns %.3f\n", contended(n))
		runtime.SetBlockProfileRate(1)
		runtime.SetMutexProfileFraction(1)
		fmt.Printf("on_ns %.3f\n", contended(n))
	case "labels":
		ctx := context.Background()
		fmt.Printf("ns %.3f\n", each(n, func() {
			pprof.Do(ctx, pprof.Labels("tenant", "a"), func(context.Context) {})
		}))
	default:
		os.Exit(2)
	}
}

// tasks starts so many goroutines, each waiting at the end of a chain of four functions.
func tasks(n int) {
	var waiting sync.WaitGroup
	waiting.Add(n)
	for i := range n {
		go serve(&waiting, i%10)
	}
	waiting.Wait()
	// Until all are parked.
	time.Sleep(100 * time.Millisecond)
}

//go:noinline
func serve(waiting *sync.WaitGroup, route int) { answer(waiting, route); runtime.KeepAlive(route) }

//go:noinline
func answer(waiting *sync.WaitGroup, route int) { query(waiting, route); runtime.KeepAlive(route) }

//go:noinline
func query(waiting *sync.WaitGroup, route int) { routes[route](waiting); runtime.KeepAlive(route) }

var never = make(chan struct{})

// Ten, so that there is more than one stack.
var routes = [10]func(*sync.WaitGroup){
	func(w *sync.WaitGroup) { w.Done(); <-never },
	func(w *sync.WaitGroup) { w.Done(); <-never },
	func(w *sync.WaitGroup) { w.Done(); <-never },
	func(w *sync.WaitGroup) { w.Done(); <-never },
	func(w *sync.WaitGroup) { w.Done(); <-never },
	func(w *sync.WaitGroup) { w.Done(); <-never },
	func(w *sync.WaitGroup) { w.Done(); <-never },
	func(w *sync.WaitGroup) { w.Done(); <-never },
	func(w *sync.WaitGroup) { w.Done(); <-never },
	func(w *sync.WaitGroup) { w.Done(); <-never },
}

func write(debug int) {
	if err := pprof.Lookup("goroutine").WriteTo(io.Discard, debug); err != nil {
		panic(err)
	}
}

// contended is nanoseconds a lock for which two goroutines wait in turn, as the Rust programs do: `common/src/locks.rs`.
func contended(n int) float64 {
	const rounds = 20
	var locks [3]sync.Mutex
	least := 0.0
	for round := range rounds {
		var ready, done sync.WaitGroup
		ready.Add(2)
		done.Add(2)
		for first := range 2 {
			go func() {
				locks[first].Lock()
				ready.Done()
				ready.Wait()
				for i := first; i < first+n/rounds; i++ {
					locks[(i+1)%3].Lock()
					locks[i%3].Unlock()
				}
				locks[(first+n/rounds)%3].Unlock()
				done.Done()
			}()
		}
		begin := cpu()
		done.Wait()
		if took := (cpu() - begin) * 1e6 / float64(n/rounds*2); round == 0 || took < least {
			least = took
		}
	}
	return least
}

// each is nanoseconds a call, in the best of some rounds.
func each(n int, f func()) float64 {
	const rounds = 20
	return best(rounds, func() {
		for range n / rounds {
			f()
		}
	}) * 1e6 / float64(n/rounds)
}

// best is the least CPU time of some calls in milliseconds.
func best(rounds int, f func()) float64 {
	least := 0.0
	for round := range rounds {
		begin := cpu()
		f()
		if took := cpu() - begin; round == 0 || took < least {
			least = took
		}
	}
	return least
}

// cpu is the CPU time of this process in milliseconds.
func cpu() float64 {
	const processCPUTime = 2 // CLOCK_PROCESS_CPUTIME_ID of Linux
	var time syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, processCPUTime, uintptr(unsafe.Pointer(&time)), 0)
	return float64(time.Nano()) / 1e6
}
