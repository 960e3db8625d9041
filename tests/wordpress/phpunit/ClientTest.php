<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Api\Outcome;
use PMP\Analytics\Api\Reply;
use PMP_API_Client;
use PMP_Config;

final class ClientTest extends SiteTestCase
{
    public function test_a_call_names_the_shop_and_carries_a_short_lived_token_of_its_scope(): void
    {
        (new PMP_API_Client(null, $this->clock))->call('POST', '/api/v1/purchases/track', '{"id":"a"}');

        $arguments = $this->mesh->calls[0]['arguments'];
        self::assertSame('the-shops-key', $arguments['headers']['x-api-key']);
        self::assertSame('application/json', $arguments['headers']['Content-Type']);
        $now = (int) MovedClock::START;
        self::assertSame(
            ['iss' => 'pmp-wordpress-integration', 'scope' => 'site', 'iat' => $now, 'exp' => $now + 300],
            self::claims($arguments),
        );
    }

    public function test_a_call_verifies_the_gateway_and_does_not_wait_for_ever_nor_follow_it_elsewhere(): void
    {
        (new PMP_API_Client(null, $this->clock))->call('GET', '/api/v1/users/42');

        $arguments = $this->mesh->calls[0]['arguments'];
        self::assertTrue($arguments['sslverify']);
        self::assertSame(0, $arguments['redirection']);
        self::assertLessThanOrEqual(10, $arguments['timeout']);
    }

    public function test_a_large_batch_gets_the_time_it_takes_and_less_than_the_lease_lasts(): void
    {
        (new PMP_API_Client(null, $this->clock))->call('POST', '/api/v1/purchases/track', str_repeat(' ', 1 << 20));

        self::assertSame(24, $this->mesh->calls[0]['arguments']['timeout']);
    }

    /**
     * @return array<string, array{string, bool}>
     */
    public static function addresses(): array
    {
        return [
            'TLS' => ['https://mesh.example', true],
            'plain across the internet' => ['http://mesh.example', false],
            'plain on this machine' => ['http://127.0.0.1:8080', true],
            'plain in a private network' => ['http://10.0.0.7:8080', true],
            'plain in a cluster' => ['http://gateway:8080', true],
            'plain to a public address' => ['http://203.0.114.7', false],
            'plain to IPv6 loopback' => ['http://[::1]:8080', true],
            'no address' => ['', false],
            'another protocol' => ['ftp://mesh.example', false],
        ];
    }

    /**
     * @dataProvider addresses
     */
    public function test_keys_and_people_travel_by_tls_or_stay_in_the_house(string $address, bool $is_safe): void
    {
        $config = new class ($address) extends PMP_Config {
            public function __construct(private readonly string $address)
            {
            }

            public function gateway_url(): string
            {
                return $this->address;
            }
        };

        self::assertSame($is_safe, $config->is_safe_address());
    }

    /**
     * @return array<string, array{string, float|null}>
     */
    public static function waits(): array
    {
        return [
            'seconds' => ['120', 120.0],
            'a date' => [gmdate('D, d M Y H:i:s \G\M\T', (int) MovedClock::START + 45), 45.0],
            'a date in the past' => [gmdate('D, d M Y H:i:s \G\M\T', (int) MovedClock::START - 45), 1.0],
            'for ever' => ['99999999', 3600.0],
            'nothing' => ['', null],
            'nonsense' => ['soon', null],
        ];
    }

    /**
     * @dataProvider waits
     */
    public function test_the_mesh_says_how_long_to_wait_within_reason(string $header, ?float $seconds): void
    {
        $answer = static fn (): array => [
            'response' => ['code' => 429, 'message' => ''],
            'headers' => ['retry-after' => $header],
            'body' => '',
            'cookies' => [],
        ];
        add_filter('pre_http_request', $answer, 20);

        $reply = (new PMP_API_Client(null, $this->clock))->call('GET', '/');
        remove_filter('pre_http_request', $answer, 20);

        self::assertSame($seconds, $reply->retry_after);
    }

    public function test_only_the_meshs_own_word_refuses_a_message(): void
    {
        $status = ['code' => 3, 'message' => 'invalid'];

        self::assertSame(Outcome::Refused, (new Reply(400, $status))->outcome());
        self::assertSame(Outcome::Failed, (new Reply(400, null))->outcome());
        self::assertSame(Outcome::Failed, (new Reply(404, ['error' => 'not here']))->outcome());
        self::assertSame(Outcome::Failed, (new Reply(200, ['welcome' => true]))->outcome());
        self::assertSame(Outcome::Failed, (new Reply(415, $status))->outcome());
        self::assertSame(Outcome::Unavailable, (new Reply(403, $status))->outcome());
        self::assertSame(Outcome::Accepted, (new Reply(200, ['success' => true]))->outcome());
    }

    /**
     * Reads and verifies a token by RFC 7515, with nothing of the plugin's.
     *
     * @param array<string, mixed> $arguments
     * @return array<string, mixed>
     */
    public static function claims(array $arguments): array
    {
        $decode = static fn (string $part): string => (string) base64_decode(strtr($part, '-_', '+/'));
        [$header, $claims, $signature] = explode('.', substr($arguments['headers']['Authorization'], strlen('Bearer ')));
        self::assertSame(['alg' => 'HS256', 'typ' => 'JWT'], json_decode($decode($header), true));
        self::assertSame(hash_hmac('sha256', "{$header}.{$claims}", 'the-shared-secret', true), $decode($signature));
        return json_decode($decode($claims), true);
    }
}
