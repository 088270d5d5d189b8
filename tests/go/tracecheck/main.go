// Tracecheck reads execution traces with the unmodified readers of Go 1.27 and Go 1.22: what `go tool trace -d=parsed` and
// `-d=1` do, for thousands of traces in one process.
//
//	tracecheck FILE...    says what it thinks of each; fails if one is broken
//	tracecheck            answers traces on its standard input: each is its length, a newline and its bytes; each is
//	                      answered with a line, "ok" and the number of events, or "error" and what the reader said
//
// Both readers are internal to Go, so tests/lib/tools.sh builds this as if it were a part of it.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"internal/trace"
	trace122 "internal/trace/v2"
	"io"
	"os"
	"strings"
)

func main() {
	var err error
	if len(os.Args) > 1 {
		err = checkFiles(os.Args[1:])
	} else {
		err = answer(bufio.NewReader(os.Stdin))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func checkFiles(paths []string) error {
	broken := 0
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		events, err := check(data)
		if err != nil {
			broken++
			fmt.Printf("%s: %v\n", path, err)
			continue
		}
		fmt.Printf("%s: ok, %d events\n", path, events)
	}
	if broken > 0 {
		return fmt.Errorf("%d of %d are broken", broken, len(paths))
	}
	return nil
}

func answer(in *bufio.Reader) error {
	for {
		var size int
		if _, err := fmt.Fscanf(in, "%d\n", &size); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(in, data); err != nil {
			return err
		}
		if events, err := check(data); err != nil {
			fmt.Printf("error %s\n", strings.ReplaceAll(err.Error(), "\n", " | "))
		} else {
			fmt.Printf("ok %d\n", events)
		}
	}
}

// check answers how many events there are for Go 1.27.
func check(data []byte) (int, error) {
	events, err := withPanics("go 1.27", func() (int, error) { return read127(data) })
	if err != nil {
		return 0, err
	}
	_, err = withPanics("go 1.22", func() (int, error) { return read122(data) })
	return events, err
}

func withPanics(version string, read func() (int, error)) (events int, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("%s: panic: %v", version, panicked)
		} else if err != nil {
			err = fmt.Errorf("%s: %w", version, err)
		}
	}()
	return read()
}

// As cmd/trace does, for its lists and for its plots.
func read127(data []byte) (int, error) {
	reader, err := trace.NewReader(bytes.NewReader(data))
	if err != nil {
		return 0, err
	}
	summarizer := trace.NewSummarizer()
	var events []trace.Event
	for {
		event, err := reader.ReadEvent()
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
		// It looks up all that the event refers to.
		_ = event.String()
		events = append(events, event)
		summarizer.Event(&events[len(events)-1])
	}
	summarizer.Finalize()
	utilization := trace.MutatorUtilizationV2(events, trace.UtilSTW|trace.UtilBackground|trace.UtilAssist)
	trace.NewMMUCurve(utilization)
	return len(events), nil
}

func read122(data []byte) (int, error) {
	reader, err := trace122.NewReader(bytes.NewReader(data))
	if err != nil {
		return 0, err
	}
	for events := 0; ; events++ {
		event, err := reader.ReadEvent()
		if err == io.EOF {
			return events, nil
		}
		if err != nil {
			return 0, err
		}
		_ = event.String()
	}
}
