<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Connect\Code;
use PMP\Analytics\Connect\Connection;
use PMP\Analytics\Connect\Finding;
use PMP\Analytics\Connect\WayBack;
use PMP\Analytics\Delivery\Pause;
use PMP\Analytics\Queue\Cipher;
use PMP\Analytics\Rest\ArrivalsRoute;
use PMP_API_Client;
use PMP_Config;
use WP_REST_Request;

/**
 * A site is connected by a one-time code.
 */
final class ConnectionTest extends SiteTestCase
{
    private const SETTINGS = ['gateway_url' => 'https://mesh.example', 'api_key' => 'k3y', 'jwt_secret' => 's3cret'];

    private const TAKE = 'POST /api/v1/connections/take';

    private const CHECK = 'POST /api/v1/connections/check';

    private const TOKEN = 'header.claims.signature';

    private string $key;

    protected function setUp(): void
    {
        parent::setUp();
        $this->key = str_repeat('k', 32);
        $this->mesh->known[self::TAKE] = ['sealed' => $this->sealed(self::SETTINGS)];
        $this->mesh->known[self::CHECK] = ['finding' => 'reached', 'status' => 0, 'is_called_on_erasure' => false];
    }

    public function test_a_code_brings_the_settings_and_the_way_is_checked_in_both_directions(): void
    {
        (new Pause($this->clock))->begin('The gateway is not configured.');

        $found = $this->connect($this->code());

        self::assertSame([
            'success This site reaches the mesh at https://mesh.example, and the mesh accepts its keys.',
            'success The mesh reaches this site at https://shop.example/wp-json/pmp/v1.',
            'warning Erasures of the mesh are not passed on to this site: its PMP_SITE_ERASURE_CALLS does not list it.',
        ], $found);
        self::assertSame(self::SETTINGS, get_option(PMP_Config::OPTION));
        self::assertFalse((new Pause($this->clock))->is_on());
        $headers = $this->mesh->calls[0]['arguments']['headers'];
        self::assertSame('Bearer ' . self::TOKEN, $headers['Authorization']);
        self::assertArrayNotHasKey('x-api-key', $headers);
    }

    public function test_other_settings_stay_and_an_erasure_secret_comes_along(): void
    {
        update_option(PMP_Config::OPTION, ['consent' => 'assumed', 'api_key' => 'old']);
        $sent = self::SETTINGS + ['erasure_secret' => 'whsec_x', 'consent' => 'required'];
        $this->mesh->known[self::TAKE] = ['sealed' => $this->sealed($sent)];
        $this->mesh->known[self::CHECK]['is_called_on_erasure'] = true;

        $found = $this->connect($this->code());

        self::assertSame('success Erasures of the mesh are passed on to this site.', end($found));
        $kept = get_option(PMP_Config::OPTION);
        self::assertSame(['assumed', 'k3y', 'whsec_x'], [$kept['consent'], $kept['api_key'], $kept['erasure_secret']]);
    }

    public function test_a_code_is_read_as_terminals_copy_it_and_nothing_else_is_one(): void
    {
        $code = $this->code();
        self::assertSame('https://mesh.example', Code::read(" \n" . chunk_split($code, 60))?->url);
        foreach (['', 'x', substr($code, 0, -40), base64_encode('{"url": "https://mesh.example"}'), base64_encode('[]'), '%'] as $other) {
            self::assertNull(Code::read($other), $other);
        }
        self::assertSame(['error This is no code of “pmp connect wordpress”, or not all of it.'], $this->connect(substr($code, 0, -40)));
        self::assertSame([], $this->mesh->calls);
    }

    public function test_a_code_that_leads_across_the_internet_without_tls_is_not_followed(): void
    {
        [$found] = $this->connect($this->code('http://mesh.example'));

        self::assertStringContainsString('neither https nor in your own network', $found);
        self::assertSame([], $this->mesh->calls);
    }

    public function test_a_code_that_is_used_expired_or_of_another_mesh_changes_nothing(): void
    {
        $this->mesh->mood = 'unauthorized';
        self::assertSame(
            ['error The code was used before, or is older than ten minutes. Make a new one.'],
            $this->connect($this->code()),
        );
        $this->mesh->mood = 'down';
        $unreached = 'This site does not reach the mesh at https://mesh.example: Connection refused.';
        self::assertStringContainsString($unreached, $this->connect($this->code())[0]);
        $this->mesh->mood = 'gone';
        self::assertStringContainsString('does not accept the code: HTTP 404', $this->connect($this->code())[0]);
        $this->mesh->mood = 'up';
        $this->key = str_repeat('x', 32);
        self::assertStringContainsString('does not open', $this->connect($this->code())[0]);
        self::assertFalse(get_option(PMP_Config::OPTION));
    }

    public function test_constants_are_named_before_a_code_is_wasted(): void
    {
        [$found] = $this->connect($this->code(), new PMP_Config());

        self::assertStringEndsWith('PMP_ANALYTICS_GATEWAY_URL, PMP_ANALYTICS_API_KEY, PMP_ANALYTICS_JWT_SECRET', $found);
        self::assertSame([], $this->mesh->calls);
    }

    /**
     * @return array<string, array{array<string, mixed>, string}>
     */
    public static function ways(): array
    {
        return [
            'nothing' => [['finding' => 'unreachable'], 'nothing answers there'],
            'a refusal' => [['finding' => 'refused', 'status' => 403], 'the call was refused with HTTP 403'],
            'another' => [['finding' => 'other'], 'something else answers there'],
        ];
    }

    /**
     * @dataProvider ways
     * @param array<string, mixed> $answer
     */
    public function test_what_the_mesh_found_is_said_in_words(array $answer, string $words): void
    {
        $this->mesh->known[self::CHECK] = $answer;
        $text = 'The mesh does not reach this site at https://shop.example/wp-json/pmp/v1: %s. Reports need only the other way.';
        self::assertSame('warning ' . sprintf($text, $words), $this->connect($this->code())[1]);
    }

    public function test_the_site_answers_the_mesh_while_it_is_checked_and_nobody_else(): void
    {
        $answers = [];
        add_filter('pre_http_request', $ask = static function (mixed $before, array $arguments) use (&$answers): mixed {
            $body = json_decode((string) ($arguments['body'] ?? ''), true);
            if (isset($body['url'])) {
                $request = new WP_REST_Request('GET', substr($body['url'], strlen('https://shop.example/wp-json')));
                $answers[] = [$body['answer'], rest_do_request($request)->get_data()['answer'], $request];
            }
            return $before;
        }, 5, 2);
        $this->connect($this->code());
        remove_filter('pre_http_request', $ask, 5);

        [[$expected, $answer, $request]] = $answers;
        self::assertSame($expected, $answer);
        self::assertSame(404, rest_do_request($request)->get_status(), 'afterwards');
    }

    public function test_arrivals_deliver_what_waits_and_count_what_the_mesh_has(): void
    {
        wp_set_current_user($this->customer());
        self::assertSame(403, rest_do_request(new WP_REST_Request('POST', '/pmp/v1/arrivals'))->get_status());
        wp_set_current_user(1);
        $this->add_events(['a']);
        $this->mesh->known['/api/v1/analytics/dashboard'] = ['figures' => [['key' => 'page_views', 'value' => 0]]];
        self::assertSame('No page view has arrived in the mesh today.', $this->arrivals());
        self::assertSame(['a'], $this->mesh->deliveries);

        $this->mesh->known['/api/v1/analytics/dashboard'] = ['figures' => [['key' => 'page_views', 'value' => 1]]];
        self::assertSame('1 page view has arrived in the mesh today.', $this->arrivals());
        $this->mesh->mood = 'down';
        self::assertSame('The mesh could not be reached: Connection refused', $this->arrivals());
    }

    private function arrivals(): string
    {
        $route = new ArrivalsRoute(new PMP_API_Client(null, $this->clock), $this->drainer(), $this->clock);
        return $route->count()->get_data()['text'];
    }

    /**
     * @return list<string>
     */
    private function connect(string $code, ?PMP_Config $config = null): array
    {
        $config ??= new class extends PMP_Config {
            public function is_fixed(string $name): bool
            {
                return false;
            }
        };
        $client = new PMP_API_Client($config, $this->clock);
        $connection = new Connection($config, $client, new Pause($this->clock), new WayBack($config, $client));
        return array_map(static fn (Finding $each): string => "{$each->kind} {$each->text}", $connection->connect($code));
    }

    private function code(string $url = 'https://mesh.example'): string
    {
        $code = (string) wp_json_encode(['url' => $url, 'token' => self::TOKEN, 'key' => base64_encode($this->key)]);
        return rtrim(strtr(base64_encode($code), '+/', '-_'), '=');
    }

    /**
     * @param array<string, string> $settings
     */
    private function sealed(array $settings): string
    {
        return base64_encode((new Cipher($this->key))->seal((string) wp_json_encode($settings), 'pmp connection 1'));
    }
}
