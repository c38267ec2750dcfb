// Stub engines that cost as little as possible: the router in front is what is measured.
//
// Every port is one engine. A request's body is read to its end, then the answer is one JSON
// document, or, when a short body asks for a stream, -chunks server-sent events -gap apart. GET
// /stub/events tells how many events all engines have written so far; any other GET is answered with
// the list of models.
//
// With -simulate the engines keep a KV cache, and the program also plays their clients: orders come
// as JSON lines on standard input, each answered by one line (chats.go).
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

var (
	ports     = flag.String("ports", "", "comma-separated ports")
	address   = flag.String("address", "127.0.0.1", "address the engines listen on")
	chunks    = flag.Int("chunks", 100, "events of a streamed answer")
	gap       = flag.Duration("gap", 0, "time between events")
	simulates = flag.Bool("simulate", false, "keep KV caches, and take orders on standard input")

	events atomic.Int64
)

// Longer bodies are thrown away unread: looking into them would cost the load's core time.
const shortBody = 16 << 10

var asksForStream = regexp.MustCompile(`"stream": ?true`)

const (
	models = `{"object":"list","data":[{"id":"m","object":"model","owned_by":"vllm"}]}`
	answer = `{"id":"c-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,` +
		`"message":{"role":"assistant","content":"A short answer."},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":1,"completion_tokens":4,"total_tokens":5}}`
	event = `data: {"id":"c-1","object":"chat.completion.chunk","created":1,"model":"m",` +
		`"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}` + "\n\n"
)

func main() {
	flag.Parse()
	var pods []*pod
	for _, port := range strings.Split(*ports, ",") {
		listener, err := net.Listen("tcp", net.JoinHostPort(*address, port))
		if err != nil {
			log.Fatal(err)
		}
		one := &pod{port: port}
		pods = append(pods, one)
		go accept(listener, one)
	}
	fmt.Println("ready")
	if !*simulates {
		select {}
	}
	orders, results := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var wanted order
		if err := orders.Decode(&wanted); err != nil {
			return
		}
		if err := results.Encode(simulate(wanted, pods)); err != nil {
			log.Fatal(err)
		}
	}
}

func accept(listener net.Listener, one *pod) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(connection, one)
	}
}

func document(body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"+
		"content-length: %d\r\n\r\n%s", len(body), body)
}

func serve(connection net.Conn, one *pod) {
	defer connection.Close()
	reader := bufio.NewReaderSize(connection, 64<<10)
	whole, list := document(answer), document(models)
	var body bytes.Buffer
	for {
		request, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		body.Reset()
		into, renders := io.Writer(&body), request.URL.Path == "/v1/chat/completions/render"
		if request.ContentLength > shortBody && !*simulates && !renders {
			into = io.Discard
		}
		if _, err = io.Copy(into, request.Body); err != nil {
			return
		}
		reply := whole
		if *simulates && !renders && request.Method == http.MethodPost {
			reply = document(one.complete(body.Bytes()))
		}
		switch {
		case renders:
			_, err = connection.Write(document(render(body.Bytes())))
		case request.URL.Path == "/stub/events":
			_, err = connection.Write(document(fmt.Sprint(events.Load())))
		case request.Method == http.MethodGet:
			_, err = connection.Write(list)
		case asksForStream.Match(body.Bytes()):
			err = stream(connection)
		default:
			_, err = connection.Write(reply)
		}
		if err != nil {
			return
		}
	}
}

// render answers as vLLM's route of that name, which vllm-router asks for a prompt's tokens: here one
// for every four bytes.
func render(body []byte) string {
	text := []byte(`{"request_id":"r","model":"m","sampling_params":{},"token_ids":[0`)
	if at := bytes.Index(body, []byte(`"messages"`)); at >= 0 {
		body = body[at:]
	}
	for ; len(body) >= 4; body = body[4:] {
		text = strconv.AppendUint(append(text, ','), uint64(binary.LittleEndian.Uint32(body)), 10)
	}
	return string(append(text, `]}`...))
}

func stream(connection net.Conn) error {
	head := "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
	if _, err := io.WriteString(connection, head); err != nil {
		return err
	}
	chunk := fmt.Appendf(nil, "%x\r\n%s\r\n", len(event), event)
	for range *chunks {
		time.Sleep(*gap)
		if _, err := connection.Write(chunk); err != nil {
			return err
		}
		events.Add(1)
	}
	_, err := io.WriteString(connection, "0\r\n\r\n")
	return err
}
