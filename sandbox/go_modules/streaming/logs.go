package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

const (
	followPause = 100 * time.Millisecond
	blockBytes  = 64 << 10
)

// serveLogs: query follow, tailLines and limitBytes of PodLogOptions. The sandbox's logs carry no
// times and are one file for all restarts, so what needs either is refused; what was written since
// some time comes with all that was written before.
func serveLogs(w http.ResponseWriter, r *http.Request, of pod) {
	query := r.URL.Query()
	for _, name := range []string{"timestamps", "previous"} {
		if given := query.Get(name); given != "" && given != "false" {
			http.Error(w, name+": the sandbox's logs carry no times", http.StatusBadRequest)
			return
		}
	}
	tail, err := number(query.Get("tailLines"))
	if err != nil {
		http.Error(w, "tailLines: "+err.Error(), http.StatusBadRequest)
		return
	}
	limit, err := number(query.Get("limitBytes"))
	if err != nil {
		http.Error(w, "limitBytes: "+err.Error(), http.StatusBadRequest)
		return
	}
	file, err := of.log(r.PathValue("container"))
	if err != nil {
		why := fmt.Sprintf("pod %s: container %q has no log", of.name, r.PathValue("container"))
		http.Error(w, why, http.StatusNotFound)
		return
	}
	defer file.Close()
	if tail >= 0 {
		if err := seekToTail(file, tail); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	out := flushing{w}
	if query.Get("follow") == "true" {
		_ = follow(r, out, file, of)
	} else if limit >= 0 {
		_, _ = io.CopyN(out, file, limit)
	} else {
		_, _ = io.Copy(out, file)
	}
}

// follow ends with the client, or with the container once all it wrote is out.
func follow(r *http.Request, out io.Writer, file *os.File, of pod) error {
	for {
		_, stopped := of.pid(r.PathValue("container"))
		copied, err := io.Copy(out, file)
		if err != nil || (copied == 0 && stopped != nil) {
			return errors.Join(err, stopped)
		}
		select {
		case <-r.Context().Done():
			return r.Context().Err()
		case <-time.After(followPause):
		}
	}
}

// seekToTail leaves the file where its last lines begin.
func seekToTail(file *os.File, lines int64) error {
	at, err := file.Seek(0, io.SeekEnd)
	if err != nil || lines == 0 {
		return err
	}
	block, left := make([]byte, blockBytes), lines
	for end := at; end > 0; {
		begin := max(0, end-blockBytes)
		part := block[:end-begin]
		if _, err := file.ReadAt(part, begin); err != nil {
			return err
		}
		for i := len(part); ; {
			if i = bytes.LastIndexByte(part[:i], '\n'); i < 0 {
				break
			}
			if begin+int64(i) == at-1 {
				continue // the end of the last line begins none
			}
			if left--; left == 0 {
				_, err := file.Seek(begin+int64(i)+1, io.SeekStart)
				return err
			}
		}
		end = begin
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}

// number is -1 for an option that was not given.
func number(text string) (int64, error) {
	if text == "" {
		return -1, nil
	}
	value, err := strconv.ParseInt(text, 10, 64)
	if err == nil && value < 0 {
		err = errors.New("must not be negative")
	}
	return value, err
}

// flushing sends every write at once: somebody may be waiting for that line.
type flushing struct{ http.ResponseWriter }

func (f flushing) Write(data []byte) (int, error) {
	written, err := f.ResponseWriter.Write(data)
	if err == nil {
		err = http.NewResponseController(f.ResponseWriter).Flush()
	}
	return written, err
}
