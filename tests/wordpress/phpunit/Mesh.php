<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use WP_Error;

/**
 * The mesh, in place of the network: counts every call, keeps what it accepts once, and fails in the ways that networks do.
 */
final class Mesh
{
    /** @var list<array{method: string, path: string, query: string, body: mixed, arguments: array<string, mixed>}> Every call, answered or not. */
    public array $calls = [];

    /** @var array<string, array<string, mixed>> Accepted messages, by call and id: each is here once. */
    public array $accepted = [];

    /** @var list<string> Ids of events that were accepted, repetitions too. */
    public array $deliveries = [];

    /** @var array<string, array<string, mixed>> What it answers, by path or by method and path; it knows nothing else. */
    public array $known = [];

    /**
     * up, slow (3 s), down, hanging, garbage, forbidden page, unauthorized, gone (404), throttled, broken (500), strict (400
     * for a bad batch).
     */
    public string $mood = 'up';

    /** What has this id makes the mesh fail with 500. */
    public string $poison = '';

    /** Dies while it answers the call of this number: the process that called is gone. */
    public int $dies_at_call = 0;

    public function __construct(private readonly MovedClock $clock)
    {
    }

    /**
     * Filter pre_http_request.
     *
     * @param array<string, mixed> $arguments
     * @return array<string, mixed>|WP_Error
     */
    public function answer(mixed $before, array $arguments, string $url): array|WP_Error
    {
        $path = (string) wp_parse_url($url, PHP_URL_PATH);
        $body = json_decode((string) ($arguments['body'] ?? ''), true);
        $query = (string) wp_parse_url($url, PHP_URL_QUERY);
        $call = ['method' => $arguments['method'], 'path' => $path, 'query' => $query, 'body' => $body, 'arguments' => $arguments];
        $this->calls[] = $call;
        if (count($this->calls) === $this->dies_at_call) {
            $this->take($path, $body);
            throw new Killed();
        }
        $this->clock->move($this->mood === 'slow' ? 3 : 0);
        if ($this->mood === 'hanging') {
            $this->clock->move((float) $arguments['timeout']);
            return new WP_Error('http_request_failed', 'Operation timed out');
        }
        return match ($this->mood) {
            'down' => new WP_Error('http_request_failed', 'Connection refused'),
            'garbage' => $this->response(200, '<html>Please log in to the hotel network</html>'),
            'forbidden page' => $this->response(403, '<html>Firewall</html>'),
            'unauthorized' => $this->response(401, $this->status(16, 'Jwt is expired')),
            'gone' => $this->response(404, $this->status(5, 'no such path')),
            'throttled' => $this->response(429, $this->status(8, 'too many'), ['retry-after' => '120']),
            'broken' => $this->response(500, $this->status(13, 'internal')),
            default => match (true) {
                $arguments['method'] === 'GET' => $this->known_answer($path),
                isset($this->known["{$arguments['method']} {$path}"]) => $this->known_answer("{$arguments['method']} {$path}"),
                default => $this->take($path, $body),
            },
        };
    }

    /**
     * @return array<string, mixed>
     */
    private function known_answer(string $path): array
    {
        return isset($this->known[$path]) ? $this->response(200, $this->known[$path]) : $this->response(404, $this->status(5, 'unknown'));
    }

    /**
     * @return array<string, mixed>
     */
    private function take(string $path, mixed $body): array
    {
        if ($path !== '/api/v1/events/batch') {
            return $this->take_one($path, (array) $body);
        }
        $results = array_map($this->verdict(...), $body['events']);
        $rejected = count(array_filter($results, static fn (array $verdict): bool => ! $verdict['success']));
        if ($this->poison !== '' && in_array($this->poison, array_column($body['events'], 'id'), true)) {
            return $this->response(500, $this->status(13, 'internal'));
        }
        if ($this->mood === 'strict' && $rejected > 0) {
            return $this->response(400, $this->status(3, 'malformed', 'events', 'bad'));
        }
        foreach ($body['events'] as $place => $event) {
            if ($results[$place]['success']) {
                $this->accepted["{$path} {$event['id']}"] = $event;
                $this->deliveries[] = $event['id'];
            }
        }
        return $this->response(200, [
            'success' => $rejected === 0,
            'accepted' => count($results) - $rejected,
            'rejected' => $rejected,
            'results' => $results,
        ]);
    }

    /**
     * @param array<string, mixed> $body
     * @return array<string, mixed>
     */
    private function take_one(string $path, array $body): array
    {
        if ($this->poison !== '' && ($body['id'] ?? '') === $this->poison) {
            return $this->response(500, $this->status(13, 'internal'));
        }
        if (str_contains((string) wp_json_encode($body), 'refuse-me')) {
            return $this->response(400, $this->status(3, 'invalid', 'email', 'odd'));
        }
        $this->accepted["{$path} " . ($body['id'] ?? $body['reference'] ?? md5((string) wp_json_encode($body)))] = $body;
        return $this->response(200, ['success' => true]);
    }

    /**
     * @param array<string, mixed> $event
     * @return array{success: bool, event_id: string, violations: list<array{field: string, description: string}>}
     */
    private function verdict(array $event): array
    {
        $is_good = ! str_contains($event['id'], 'bad');
        return [
            'success' => $is_good,
            'event_id' => $event['id'],
            'violations' => $is_good ? [] : [['field' => 'timestamp', 'description' => 'is from tomorrow']],
        ];
    }

    /**
     * google.rpc.Status, with google.rpc.BadRequest for a field.
     *
     * @return array<string, mixed>
     */
    private function status(int $code, string $message, string $field = '', string $description = ''): array
    {
        $violations = [['field' => $field, 'description' => $description]];
        return ['code' => $code, 'message' => $message, 'details' => $field === '' ? [] : [['fieldViolations' => $violations]]];
    }

    /**
     * @param array<string, mixed>|string $body
     * @param array<string, string>       $headers
     * @return array<string, mixed>
     */
    private function response(int $status, array|string $body, array $headers = []): array
    {
        return [
            'response' => ['code' => $status, 'message' => ''],
            'headers' => $headers + ['content-type' => is_string($body) ? 'text/html' : 'application/json'],
            'body' => is_string($body) ? $body : (string) wp_json_encode($body),
            'cookies' => [],
        ];
    }
}
