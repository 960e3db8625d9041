<?php

declare(strict_types=1);

namespace PMP\Analytics\Privacy;

use PMP\Analytics\Api\Reply;
use PMP\Analytics\Clock;
use PMP_API_Client;

/**
 * Sends privacy requests about a person to the mesh and follows their progress, while WordPress calls page by page: the requests
 * are kept between pages, and the first page starts new ones.
 *
 * A person is identified by the e-mail address and by the account that has it: a guest has none, and an account may have used
 * other addresses. If both lead to one person, the mesh answers with the same request.
 */
final class SubjectRequests
{
    private const ASKED = 'pmp_asked_';

    /** How long one page waits, and its polling interval. */
    private const PAGE_SECONDS = 5.0;

    private const PAUSE_SECONDS = 0.5;

    private const LATE_SECONDS = 600.0;

    public function __construct(private readonly PMP_API_Client $client, private readonly Clock $clock)
    {
    }

    public function erase(string $email, int $page): Progress
    {
        return $this->follow('erase', $email, $page, static fn (int $id): array => ['DELETE', "/api/v1/users/{$id}/data", '']);
    }

    public function export(string $email, int $page): Progress
    {
        return $this->follow('export', $email, $page, static fn (int $id): array => ['POST', "/api/v1/users/{$id}/export", '']);
    }

    /**
     * @param callable(int): array{string, string, string} $of_account Method, path and body.
     */
    private function follow(string $what, string $email, int $page, callable $of_account): Progress
    {
        $key = self::ASKED . $what . hash_hmac('sha256', strtolower($email), wp_salt());
        $asked = $page > 1 ? get_transient($key) : false;
        if (! is_array($asked)) {
            $calls = [['POST', "/api/v1/users/{$what}", (string) wp_json_encode(['email' => $email])]];
            array_push($calls, ...array_map($of_account, Person::with_email($email)->user_ids));
            $asked = ['since' => $this->clock->now(), 'ids' => []];
            foreach ($calls as $call) {
                $reply = $this->client->call(...$call);
                $id = $this->request($reply)['id'] ?? '';
                if (! is_string($id) || $id === '') {
                    return new Progress([], false, problem: $reply->reason());
                }
                $asked['ids'][$id] = $id;
            }
            set_transient($key, $asked, HOUR_IN_SECONDS);
        }
        $progress = $this->wait(array_values($asked['ids']), $asked['since']);
        if ($progress->is_done || $progress->is_late) {
            delete_transient($key);
        }
        return $progress;
    }

    /**
     * @param list<string> $ids
     */
    private function wait(array $ids, float $since): Progress
    {
        $until = $this->clock->now() + self::PAGE_SECONDS;
        while (true) {
            $requests = array_map($this->poll(...), $ids);
            $is_done = array_filter($requests, static fn (array $request): bool => ($request['state'] ?? '') !== 'done') === [];
            $now = $this->clock->now();
            if ($is_done || $now >= $until) {
                return new Progress($requests, $is_done, $now >= $since + self::LATE_SECONDS);
            }
            $this->clock->wait(self::PAUSE_SECONDS);
        }
    }

    /**
     * @return array<string, mixed> Only the id while the mesh does not answer; it continues to work on the request.
     */
    private function poll(string $id): array
    {
        return $this->request($this->client->call('GET', "/api/v1/gdpr/requests/{$id}")) + ['id' => $id];
    }

    /**
     * @return array<string, mixed>
     */
    private function request(Reply $reply): array
    {
        return $reply->status === 200 ? (array) ($reply->body['request'] ?? []) : [];
    }
}
