<?php

declare(strict_types=1);

namespace PMP\Analytics\Reports;

use PMP\Analytics\Api\Reply;
use PMP\Analytics\Api\Token;
use PMP\Analytics\Clock;
use PMP_API_Client;

/**
 * Asks the mesh for figures. An answer is kept for a minute, so that a page that is opened by several people, or again, costs one
 * call; sums are kept longer, for the time when the mesh is away.
 */
final class Reports
{
    public const NAME = 'pmp_report_';

    /** Answers that name nobody. Others are gone after a minute, and with an erasure. */
    private const SUMS = ['/api/v1/analytics/dashboard', '/api/v1/comparisons/newest', '/api/v1/events/accounting'];

    private const FRESH_SECONDS = 60;

    private const LAST_SECONDS = 7 * DAY_IN_SECONDS;

    /** A larger answer is passed on and not kept. */
    private const MAX_KEPT_BYTES = 512 << 10;

    private const MAX_BYTES = 8 << 20;

    private const JSON = 'application/json';

    private const TYPES = [self::JSON, 'text/csv'];

    public function __construct(private readonly PMP_API_Client $client, private readonly Clock $clock)
    {
    }

    /**
     * @param string $path    A path of the mesh that a token of scope `read` opens.
     * @param string $query   Without a question mark.
     * @param int    $seconds How long to wait for the mesh.
     */
    public function ask(string $path, string $query, int $seconds): Answer
    {
        $name = self::NAME . md5("{$path}?{$query}");
        $kept = $this->kept($name);
        $now = $this->clock->now();
        if ($kept !== null && $now - $kept->at < self::FRESH_SECONDS) {
            return $kept;
        }
        $reply = $this->client->call('GET', "{$path}?{$query}", '', $seconds, self::MAX_BYTES, Token::READ);
        $answer = $this->answer($reply, $now);
        if ($answer->type === self::JSON && strlen($answer->text) <= self::MAX_KEPT_BYTES) {
            $this->keep($name, $answer, in_array($path, self::SUMS, true) ? self::LAST_SECONDS : self::FRESH_SECONDS);
        }
        if ($answer->status === 503 && $kept !== null) {
            return new Answer(200, $kept->text, $kept->type, $kept->disposition, $kept->at, true);
        }
        return $answer;
    }

    /**
     * Removes the answers that are kept, since they may name a person who was erased.
     */
    public static function forget(): void
    {
        global $wpdb;
        $wpdb->query("DELETE FROM {$wpdb->options} WHERE option_name REGEXP '^_transient_(timeout_)?" . self::NAME . "'");
    }

    private function answer(Reply $reply, float $now): Answer
    {
        $type = trim(explode(';', $reply->type)[0]);
        if (strlen($reply->text) >= self::MAX_BYTES) {
            return new Answer(413, __('The answer is too large: choose a shorter period.', 'pmp-analytics'));
        }
        if ($reply->status === 200 && in_array($type, self::TYPES, true) && ($type !== self::JSON || $reply->body !== null)) {
            return new Answer(200, $reply->text, $type, $reply->disposition, $now);
        }
        return match (true) {
            in_array($reply->status, [401, 403], true) => new Answer(
                424,
                /* translators: %s: the mesh's reason. */
                sprintf(__('The mesh does not accept the keys of this shop: %s', 'pmp-analytics'), $reply->reason()),
            ),
            in_array($reply->status, [400, 404, 429], true) => new Answer($reply->status, $reply->reason()),
            default => new Answer(503, $reply->reason()),
        };
    }

    private function kept(string $name): ?Answer
    {
        $kept = get_transient($name);
        return is_array($kept) ? new Answer(200, $kept['text'], self::JSON, '', $kept['at']) : null;
    }

    private function keep(string $name, Answer $answer, int $seconds): void
    {
        set_transient($name, ['text' => $answer->text, 'at' => $answer->at], $seconds);
    }
}
