<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Queue\Kind;
use WP_REST_Request;

/**
 * What visitors answer when they are asked for their consent.
 */
final class ChoicesTest extends SiteTestCase
{
    protected const RECORDS_VALID_PAYLOADS = true;

    private const GRANTED = ['session_id' => 's-9f8e7d6c', 'choice' => 'granted', 'timestamp' => '2026-11-22T10:15:29.500Z'];

    public function test_an_answer_is_kept_for_the_mesh_and_nobody_waits_for_it(): void
    {
        self::assertSame(202, $this->choose(self::GRANTED));
        self::assertSame([], $this->mesh->calls);

        $this->drain();

        [$call] = $this->mesh->calls;
        self::assertSame('PUT /api/v1/users/session:s-9f8e7d6c/consent', "{$call['method']} {$call['path']}");
        self::assertSame(
            ['analytics_tracking' => true, 'source' => 'banner', 'timestamp' => '2026-11-22T10:15:29.500Z'],
            $call['body'],
        );
        self::assertSame('site', ClientTest::claims($call['arguments'])['scope']);
    }

    public function test_an_answer_comes_with_the_choice_about_sharing_if_a_consent_tool_has_one(): void
    {
        $_COOKIE['wp_consent_marketing'] = 'deny';
        $this->choose(self::GRANTED);
        $_COOKIE = [];

        $payload = $this->outbox(Kind::Consent)[0]['payload'];
        self::assertSame([true, false], [$payload['analytics_tracking'], $payload['third_party_sharing']]);
    }

    public function test_a_visitor_may_change_their_mind(): void
    {
        $this->choose(self::GRANTED);
        $this->choose(['choice' => 'denied', 'timestamp' => '2026-11-22T10:15:30Z'] + self::GRANTED);

        $reported = array_column($this->outbox(Kind::Consent), 'payload');
        self::assertSame([true, false], array_column($reported, 'analytics_tracking'));
    }

    public function test_an_answer_says_which_privacy_policy_could_be_read(): void
    {
        $policy = (int) wp_insert_post(['post_type' => 'page', 'post_status' => 'publish', 'post_title' => 'Our privacy']);
        update_option('wp_page_for_privacy_policy', $policy);

        $this->choose(self::GRANTED);

        self::assertSame(gmdate('Y-m-d'), $this->outbox(Kind::Consent)[0]['payload']['policy_version']);
    }

    public function test_a_browser_whose_clock_is_ahead_answers_now(): void
    {
        $this->choose(['timestamp' => '2036-01-01T00:00:00Z'] + self::GRANTED);

        $reported = strtotime($this->outbox(Kind::Consent)[0]['payload']['timestamp']);
        self::assertEqualsWithDelta($this->clock->now(), $reported, 1);
    }

    /**
     * @return array<string, array{mixed}>
     */
    public static function odd(): array
    {
        return [
            'no session' => [['choice' => 'granted']],
            'an invalid session id' => [['session_id' => '../42'] + self::GRANTED],
            'a name longer than the mesh takes' => [['session_id' => str_repeat('x', 201)] + self::GRANTED],
            'no answer' => [['choice' => 'perhaps'] + self::GRANTED],
            'a text' => ['granted'],
            'a large body' => [['text' => str_repeat('x', 3000)] + self::GRANTED],
        ];
    }

    /**
     * @dataProvider odd
     */
    public function test_what_is_no_answer_is_refused(mixed $body): void
    {
        self::assertSame(400, $this->choose($body));
        self::assertSame([], $this->outbox());
    }

    public function test_pages_of_others_answer_nothing(): void
    {
        self::assertSame(403, $this->choose(self::GRANTED, ['origin' => 'https://elsewhere.example']));
        self::assertSame(202, $this->choose(self::GRANTED, ['origin' => 'https://shop.example']));
    }

    public function test_a_flood_of_answers_is_turned_away(): void
    {
        for ($answer = 0; $answer < 30; ++$answer) {
            $this->choose(self::GRANTED);
        }

        self::assertSame(429, $this->choose(self::GRANTED));
    }

    /**
     * @param array<string, string> $headers
     */
    private function choose(mixed $body, array $headers = []): int
    {
        $request = new WP_REST_Request('POST', '/pmp/v1/choices');
        $request->set_headers($headers + ['content-type' => 'text/plain;charset=UTF-8']);
        $request->set_body((string) json_encode($body));
        return rest_do_request($request)->get_status();
    }
}
